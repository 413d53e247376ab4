"""The command ``stmixer``: a verb for each tool.

Help comes from help.json, which :func:`write_help` makes of the tools' signatures: to
import a tool with all that it needs takes seconds.
"""

import json
import os
import runpy
import sys
from difflib import get_close_matches
from pathlib import Path

VERBS = dict(
    demo='run_demo',
    detect='detect',
    live='live',
    train='train',
    test='test',
    evaluate='evaluate',
    check='check_dataset',
    browse='browse_dataset',
    own='own',
    convert='convert_checkpoint',
    summary='summary',
    clips='clips',
    export='export',
    extract='extract',
    model='print_model',
)
TOOLS = Path(__file__).parent
HELP = TOOLS / 'help.json'


def main() -> None:
    """Run the tool of the first word of the command line."""
    verb, *arguments = sys.argv[1:] or ['--help']
    if verb in ('-h', '--help'):
        print('usage: stmixer VERB [options]\n')
        for name, text in read_help().items():
            print(f'  {name:10}{text["does"]}')
        print('\nstmixer VERB --help lists the options of a verb.')
    elif verb not in VERBS:
        close = ''.join(f'; did you mean {x}?' for x in get_close_matches(verb, VERBS))
        print(f'error: stmixer has no verb {verb!r}{close}', file=sys.stderr)
        sys.exit(2)
    elif {'-h', '--help'} & {*arguments}:
        print(read_help()[verb]['help'], end='')
    else:
        sys.argv = [f'stmixer {verb}', *arguments]
        runpy.run_path(str(TOOLS / f'{VERBS[verb]}.py'), run_name='__main__')


def read_help() -> dict[str, dict[str, str]]:
    return json.loads(HELP.read_text('utf-8'))


def make_help() -> dict[str, dict[str, str]]:
    """A sentence and the help of each verb, from the signatures of the tools."""
    from stmixer_mm.command_line import make_parser

    os.environ['COLUMNS'] = '88'
    texts = {}
    for verb, tool in VERBS.items():
        parser, _ = make_parser(runpy.run_path(str(TOOLS / f'{tool}.py'))['main'])
        parser.prog = f'stmixer {verb}'
        does = parser.description.splitlines()[0]
        texts[verb] = dict(does=does, help=parser.format_help())
    return texts


def write_help() -> None:
    text = json.dumps(make_help(), indent=1, ensure_ascii=False)
    HELP.write_text(f'{text}\n', 'utf-8')


if __name__ == '__main__':
    main()
