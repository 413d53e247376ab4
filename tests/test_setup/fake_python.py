"""A stand-in for an interpreter with venv and pip, for the tests of the set-up.

What is installed beside it is in ``state.json`` in its environment's folder. Every
call is noted in ``$FAKE_CALLS``.
"""

import json
import os
import shutil
import sys
from pathlib import Path

HERE = Path(os.path.abspath(__file__))
PREFIX = HERE.parent.parent
STATE = PREFIX / 'state.json'
SITE = PREFIX / 'lib'


def fail(text):
    print(text)
    sys.exit(1)


def answer_probe(state):
    facts = dict(
        version=state['version'],
        prefix=str(PREFIX),
        in_venv=state.get('in_venv', False),
        venv=state.get('venv', True),
        site_packages=[str(SITE)],
        stdlib=str(PREFIX / 'stdlib'),
        include=str(PREFIX / 'include'),
        packages={
            info.name.split('-')[0]: info.name.split('-')[1]
            for info in (path.with_suffix('') for path in SITE.glob('*.dist-info'))
        },
    )
    print(json.dumps(facts))


def make_venv(state, folder):
    shutil.rmtree(folder, ignore_errors=True)
    for part in ('bin', 'include', 'lib', 'stdlib'):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / 'include' / 'Python.h').touch()
    shutil.copy(HERE, folder / 'bin' / 'python')
    install(folder / 'lib', 'pip', '25.0')
    text = json.dumps({**state, 'in_venv': True})
    (folder / 'state.json').write_text(text)


def install(site, name, version):
    name = name.replace('-', '_')
    for old in site.glob(f'{name}-*.dist-info'):
        shutil.rmtree(old)
    info = site / f'{name}-{version}.dist-info'
    info.mkdir(parents=True)
    (site / f'{name}.py').write_text('x = 1\n')
    (info / 'RECORD').write_text(f'{name}.py,,6\n{info.name}/RECORD,,\n')


def pip_install(state, arguments):
    options = {'--no-input', '--disable-pip-version-check', '-v', '--editable'}
    options |= {'--no-deps', '--no-build-isolation', '--upgrade', '--no-cache-dir'}
    options |= {'--force-reinstall'}
    requirements, arguments = [], iter(arguments)
    for argument in arguments:
        if argument in ('--constraint', '--progress-bar'):
            next(arguments)
        elif argument not in options:
            requirements.append(argument)
    if state.get('pip_says'):
        fail(state['pip_says'])
    for requirement in requirements:
        name, _, version = requirement.partition('==')
        name = name.split('<')[0].split('>')[0].lower()
        if name == state.get('killed_at'):
            (SITE / f'{name}-{version or "9.9"}.dist-info').mkdir()  # no RECORD
            os.kill(os.getppid(), 9)
            sys.exit(9)
        if name.startswith('/'):
            name = 'stmixer_mm'
        install(SITE, name, version or '9.9')
        if name == 'mmcv':
            fresh = '--no-cache-dir' in sys.argv or not state.get('stale_wheel')
            state['mmcv_works'] = fresh and not state.get('mmcv_never_works', False)
        if name.startswith('opencv'):
            state['cv2_works'] = True
    STATE.write_text(json.dumps(state))


def run_code(state, code):
    if 'site_packages' in code:
        answer_probe(state)
    elif 'mmcv.ops' in code and not state.get('mmcv_works'):
        fail('ImportError: undefined symbol: _ZN3c10')
    elif 'cv2' in code and not state.get('cv2_works'):
        fail('ImportError: libGL.so.1: cannot open shared object file')


def main(arguments):
    with open(os.environ['FAKE_CALLS'], 'a') as calls:
        calls.write(json.dumps(arguments) + '\n')
    state = json.loads(STATE.read_text())
    if arguments[:2] == ['-m', 'venv']:
        make_venv(state, Path(arguments[-1]))
    elif arguments[:3] == ['-m', 'pip', 'install']:
        pip_install(state, arguments[3:])
    else:
        run_code(state, arguments[arguments.index('-c') + 1])


if __name__ == '__main__':
    main(sys.argv[1:])
