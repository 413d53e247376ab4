"""Imports go down the floors that docs/architecture.md names."""

import ast
import subprocess
import sys
from pathlib import Path

import mmaction
from tiny_stmixer import tool_environment, write_project

import stmixer_mm

PACKAGE = Path(stmixer_mm.__file__).parent
GROUND_FLOOR = (
    'registry compat errors files plain_pickle structures records command_line '
    'mmcv_operators pictures'
)
UPPER_FLOORS = 'models', 'engine', 'datasets', 'visualization', 'evaluation', 'apis'
FLOOR_OF = dict.fromkeys(GROUND_FLOOR.split(), 0) | {
    room: floor for floor, room in enumerate((*UPPER_FLOORS, 'projects'), start=1)
}


def imports():
    """Parts of each module's path in the package, and of what it imports from there."""
    for file in PACKAGE.rglob('*.py'):
        module = file.relative_to(PACKAGE).with_suffix('').parts
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                package, *target = f'{node.module}.'.split('.')
                if package == 'stmixer_mm':
                    yield module, target


def test_rooms_import_from_floors_below_and_no_project_another():
    inside = [pair for pair in imports() if pair[0] != ('__init__',)]
    assert inside
    for module, target in inside:
        assert FLOOR_OF[target[0]] <= FLOOR_OF[module[0]], (module, target)
        if target[0] == 'projects':
            assert target[1] in (module[1], 'common'), (module, target)


WITHOUT_PROJECTS = """
import runpy, sys

class Hidden:
    def find_spec(self, name, *_):
        if name.startswith('stmixer_mm.projects'):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())

tools, config = sys.argv[1:]
test = ['test.py', config, 'work/epoch_1.pth', '--show-dir', 'show']
for tool, *arguments in ['train.py', config], test:
    sys.argv = [f'{tools}/{tool}', *arguments, '--work-dir', 'work']
    runpy.run_path(sys.argv[0], run_name='__main__')

from stmixer_mm.apis import ActionDetInferencer

results = ActionDetInferencer(config, 'work/epoch_1.pth')('0.mp4')
assert results['predictions'][0].keyframes
"""


def test_the_core_works_without_projects_also_in_the_hosts_tools(tmp_path):
    tools = Path(mmaction.__file__).parent / '.mim' / 'tools'
    run_python(WITHOUT_PROJECTS, tools, write_project(tmp_path), cwd=tmp_path)
    assert len(list(tmp_path.rglob('show/*'))) == 4


def run_python(*code, **options):
    """What a process of its own prints."""
    options |= dict(env=tool_environment(), stdout=subprocess.PIPE, text=True)
    return subprocess.run([sys.executable, '-c', *code], check=True, **options).stdout


def test_a_newer_mmcv_is_admitted():
    code = (
        "import mmcv; mmcv.__version__ = '2.3.6'\n"
        'import stmixer_mm, mmaction.models, mmaction.datasets, mmaction.evaluation\n'
        'print(mmcv.__version__)'
    )
    assert run_python(code).endswith('2.3.6\n')


def test_parts_that_moved_to_projects_are_found_by_their_names():
    code = (
        'from stmixer_mm.apis.config import is_registered\n'
        'from stmixer_mm.registry import MODELS, TASK_UTILS\n'
        "assert is_registered('STMixerTubeletHead')\n"
        "assert MODELS.get('STMixerTubeletDecoder') and MODELS.get('STMixerTubeletHead')\n"
        "assert TASK_UTILS.get('stmixer_mm.TubeletCost')"
    )
    run_python(code)
