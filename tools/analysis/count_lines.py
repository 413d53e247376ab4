#!/usr/bin/env python3
"""Count the lines and words of the house against its budgets.

Lines are lines of files, with comments and blank lines. Guards are folders of checks,
``errors.py``, ``files.py``, ``plain_pickle.py``, ``apis/config.py``, functions named
``check_…``, and elsewhere each ``raise UserError`` with its ``if``, and the head of each
``blame``.
"""

import argparse
import ast
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
GUARDS = 'checks/', '/errors.py', '/files.py', 'plain_pickle.py', 'apis/config.py'
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (
    *(ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.Assert),
    *(ast.comprehension, ast.BoolOp, ast.match_case),
)


def count_lines(files):
    return sum(
        len(file.read_text('utf-8').splitlines()) for file in files if file.exists()
    )


def list_code(folder):
    return sorted(file for file in folder.rglob('*.py') if '.mim' not in file.parts)


def list_pages(root):
    """Markdown files in folders of the repository."""
    folders = 'configs', 'docs', 'stmixer_mm', 'tests', 'tools'
    pages = [root / 'CONTRIBUTING.md']
    return pages + [file for name in folders for file in root.glob(f'{name}/**/*.md')]


def length(node):
    return node.end_lineno - node.lineno + 1


def complexity(function):
    """McCabe's number, without that of functions inside."""
    return 1 + sum(isinstance(node, BRANCHES) for node in walk_own(function))


def walk_own(function):
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, FUNCTIONS):
            yield child
            yield from walk_own(child)


def raises_user_error(node):
    return isinstance(node, ast.Raise) and 'UserError(' in ast.unparse(node)


def is_guard(node):
    if isinstance(node, FUNCTIONS):
        return (node.name.lstrip('_') + '_').startswith('check_')
    if isinstance(node, ast.If):
        return not node.orelse and raises_user_error(node.body[-1])
    if isinstance(node, ast.With):
        return any('blame(' in ast.unparse(item) for item in node.items)
    return raises_user_error(node)


def guard_lines(tree):
    """Numbers of the lines of guards; of a ``with blame``, only those of its head."""
    lines = set()
    for node in ast.walk(tree):
        if is_guard(node):
            last = node.end_lineno
            if isinstance(node, ast.With):
                last = node.body[0].lineno - 1
            lines |= set(range(node.lineno, last + 1))
    return lines


def count_guards(root, files):
    total = 0
    for file in files:
        if any(name in str(file.relative_to(root)) for name in GUARDS):
            total += count_lines([file])
        else:
            total += len(guard_lines(ast.parse(file.read_text('utf-8'))))
    return total


def count_words(files):
    return sum(len(file.read_text('utf-8').split()) for file in files)


def list_budgets(root):
    """Rows (what, number, goal) of a checkout."""
    package = root / 'stmixer_mm'
    modules = list_code(package)
    projects = list_code(package / 'projects')
    core = [file for file in modules if file not in set(projects)]
    trees = [ast.parse(file.read_text('utf-8')) for file in modules]
    functions = [
        node for tree in trees for node in ast.walk(tree) if isinstance(node, FUNCTIONS)
    ]
    lengths = sorted(map(length, functions))
    num_complex = sum(complexity(function) > 10 for function in functions)
    models = package / 'models'
    detectors = [*list_code(models / 'detectors'), models / 'parts.py']
    longest = max(modules, key=lambda file: count_lines([file]))
    pages = [root / 'README.md', *list_pages(root)]
    return [
        ('core', count_lines(core), '≤ 12000'),
        ('projects', count_lines(projects), '≤ 10500'),
        ('guards', count_guards(root, modules), '≤ 1500'),
        ('models: detectors and parts', count_lines(detectors), '≤ 280'),
        ('models: heads', count_lines(list_code(models / 'heads')), '≤ 550'),
        (f'longest file ({longest.name})', count_lines([longest]), '≤ 400'),
        ('longest function', lengths[-1], '≤ 60'),
        ('functions: median', round(median(lengths)), ''),
        ('functions: 90 %', lengths[len(lengths) * 9 // 10], ''),
        ('McCabe > 10, %', round(100 * num_complex / len(functions), 1), ''),
        ('configs', count_lines(list_code(root / 'configs')), '≤ 1600'),
        ('tools', count_lines(list_code(root / 'tools')), '≤ 1900'),
        ('tests', count_lines(list_code(root / 'tests')), '≤ 13500'),
        ('README, words', count_words(pages[:1]), '≤ 900'),
        ('all pages, words', count_words(pages), '≤ 22000'),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('root', nargs='?', type=Path, default=ROOT, help='a checkout')
    for what, number, goal in list_budgets(parser.parse_args().root):
        print(f'{what:48}{number:>8}  {goal}')


if __name__ == '__main__':
    main()
