"""Imports go down the floors that docs/architecture.md names."""

import ast
import subprocess
import sys
from pathlib import Path

import mmaction
from tiny_stmixer import tool_environment, write_project

import stmixer_mm

PACKAGE = Path(stmixer_mm.__file__).parent
FLOORS = (
    {'registry', 'compat', 'errors', 'files', 'plain_pickle', 'structures', 'records'}
    | {'command_line'},
    {'models'},
    {'engine'},
    {'datasets'},
    {'visualization'},
    {'evaluation'},
    {'apis'},
    {'projects'},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def test_rooms_import_from_floors_below():
    upward = []
    for file in PACKAGE.rglob('*.py'):
        room = file.relative_to(PACKAGE).parts[0].removesuffix('.py')
        for node in ast.walk(ast.parse(file.read_text())):
            if room == '__init__' or not isinstance(node, ast.ImportFrom):
                continue
            package, _, rest = node.module.partition('.')
            target = rest.partition('.')[0]
            if package == 'stmixer_mm' and FLOOR_OF[target] > FLOOR_OF[room]:
                upward.append(f'{file.relative_to(PACKAGE)}: {node.module}')
    assert not upward


def test_no_project_imports_another():
    across = []
    for file in (PACKAGE / 'projects').rglob('*.py'):
        project = file.relative_to(PACKAGE / 'projects').parts[0]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                parts = node.module.split('.')
                if parts[1:2] == ['projects'] and parts[2:3] != [project]:
                    across.append(f'{file.relative_to(PACKAGE)}: {node.module}')
    assert not across


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

found = ActionDetInferencer(config, 'work/epoch_1.pth')('0.mp4')
assert found['predictions'][0].keyframes
"""


def test_the_core_works_without_projects_also_in_the_hosts_tools(tmp_path):
    tools = Path(mmaction.__file__).parent / '.mim' / 'tools'
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_PROJECTS, tools, write_project(tmp_path)],
        cwd=tmp_path,
        env=tool_environment(),
        check=False,
    )
    assert done.returncode == 0
    assert len(list(tmp_path.rglob('show/*'))) == 4
