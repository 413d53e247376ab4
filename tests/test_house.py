"""Imports go down the floors that docs/architecture.md names."""

import ast
from pathlib import Path

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
    {'checks'},
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
