"""The set-up's decisions, with stand-ins for Python, pip and the compiler."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE_PYTHON = Path(__file__).with_name('fake_python.py')
TOOL = ROOT / 'tools' / 'setup_env.py'

spec = importlib.util.spec_from_file_location('setup_env', TOOL)
setup_env = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup_env)


class Machine:
    """A folder with a copy of the tool, and a PATH that holds only stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / 'checkout'
        (self.root / 'tools').mkdir(parents=True)
        shutil.copy(TOOL, self.root / 'tools')
        shutil.copy(ROOT / 'setup.cfg', self.root)
        self.calls_file = folder / 'calls'
        self.bin = self.add_python('system', 'python3').parent
        self.add_program('c++', 'exit 0')
        self.venv_python = self.root / '.venv/bin/python'

    def add_program(self, name: str, script: str) -> None:
        program = self.bin / name
        program.write_text(f'#!/bin/sh\n{script}\n')
        program.chmod(0o755)

    def add_python(self, folder: str, name: str, **state) -> Path:
        prefix = self.root.parent / folder
        for part in ('bin', 'include', 'lib', 'stdlib'):
            (prefix / part).mkdir(parents=True, exist_ok=True)
        (prefix / 'include' / 'Python.h').touch()
        python = prefix / 'bin' / name
        python.write_text(f'#!{sys.executable} -IS\n{FAKE_PYTHON.read_text()}')
        python.chmod(0o755)
        state = {'version': [3, 11, 7], 'cv2_works': True, **state}
        (prefix / 'state.json').write_text(json.dumps(state))
        self.install(python, 'pip', '25.0')
        return python

    def change(self, python: Path, **state) -> None:
        file = python.parent.parent / 'state.json'
        file.write_text(json.dumps({**json.loads(file.read_text()), **state}))

    def install(self, python: Path, name: str, version: str) -> None:
        name = name.replace('-', '_')
        info = python.parent.parent / 'lib' / f'{name}-{version}.dist-info'
        info.mkdir()
        (info / 'RECORD').write_text(f'{info.name}/RECORD,,\n')

    def set_up(self, *options: str) -> SimpleNamespace:
        self.calls_file.write_text('')
        done = subprocess.run(
            [sys.executable, '-IS', self.root / 'tools/setup_env.py', *options],
            env={
                'PATH': str(self.bin),
                'FAKE_CALLS': str(self.calls_file),
                'LANG': 'C.UTF-8',
            },
            capture_output=True,
            text=True,
        )
        calls = [json.loads(line) for line in self.calls_file.read_text().splitlines()]
        return SimpleNamespace(
            code=done.returncode,
            output=done.stdout,
            error=done.stderr,
            pip=[call for call in calls if call[:3] == ['-m', 'pip', 'install']],
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def pins():
    return setup_env.Wanted(ROOT / 'setup.cfg', ['test'])


def installed(python: Path) -> dict:
    infos = (python.parent.parent / 'lib').glob('*.dist-info')
    return dict(info.name[: -len('.dist-info')].split('-') for info in infos)


def requirement_calls(result, requirement):
    return [call for call in result.pip if requirement in call]


def test_fresh_machine_gets_everything_and_then_nothing(machine):
    first = machine.set_up('--extras', 'test')
    assert (first.code, first.error) == (0, '')
    have = installed(machine.venv_python)
    for requirement in [*pins().torch, *pins().all()]:
        assert setup_env.requirement_name(requirement).replace('-', '_') in have
    assert {have[name] for name in ('torch', 'mmcv')} == {'2.13.0', '2.1.0'}
    order = [call[-1].split('==')[0] for call in first.pip]
    assert order.index('torch') < order.index('mmcv') < len(order) - 1

    second = machine.set_up('--extras', 'test')
    assert (second.code, second.output, second.pip) == (0, '', [])


def test_mmcv_is_compiled_without_isolation_debug_information_or_dependencies(machine):
    machine.set_up()
    (call,) = requirement_calls(machine.set_up('--extras', 'lint'), 'ruff==0.17.5')
    assert 'mmcv==2.1.0' not in call
    shutil.rmtree(machine.root / '.venv')
    (call,) = requirement_calls(machine.set_up(), 'mmcv==2.1.0')
    assert {'--no-build-isolation', '--no-deps'} <= set(call)
    assert '--no-cache-dir' not in call


def test_cached_wheel_of_another_torch_is_compiled_anew(machine):
    machine.change(machine.bin / 'python3', stale_wheel=True)
    result = machine.set_up()
    assert result.code == 0, result.error
    cached, anew = requirement_calls(result, 'mmcv==2.1.0')
    assert '--no-cache-dir' not in cached
    assert {'--no-cache-dir', '--force-reinstall'} <= set(anew)


def test_mmcv_that_stopped_importing_is_not_taken_from_the_cache(machine):
    machine.set_up()
    machine.change(machine.venv_python, mmcv_works=False)
    (machine.venv_python.parent.parent / '.stmixer_mm_setup.json').unlink()
    (call,) = requirement_calls(machine.set_up(), 'mmcv==2.1.0')
    assert '--no-cache-dir' in call


def test_mmcv_that_never_imports_is_an_error(machine):
    machine.change(machine.bin / 'python3', mmcv_never_works=True)
    result = machine.set_up()
    assert result.code == 1
    assert 'does not import (ImportError: undefined symbol: _ZN3c10)' in result.error


def remove_compiler(machine):
    (machine.bin / 'c++').unlink()


def break_compiler(machine):
    machine.add_program('c++', 'echo "error: optional: No such file"; exit 1')


def remove_header(machine):
    (machine.bin.parent / 'include/Python.h').unlink()


def too_new_python(machine):
    machine.change(machine.bin / 'python3', version=[3, 13, 0])


def no_python_that_runs(machine):
    machine.add_program('python3', 'echo "pyenv: command not found" >&2; exit 127')


def no_venv_module(machine):
    machine.change(machine.bin / 'python3', venv=False)


def pip_that_says(text):
    return lambda machine: machine.change(machine.bin / 'python3', pip_says=text)


@pytest.mark.parametrize(
    ('fault', 'sentence'),
    [
        (remove_compiler, 'There is no C++ compiler (c++)'),
        (break_compiler, 'fails on a small C++17 extension (error: optional'),
        (remove_header, 'apt install python3.11-dev'),
        (too_new_python, 'Python 3.10 to 3.12 is needed but'),
        (no_python_that_runs, 'Python 3.10 to 3.12 is needed but none was found'),
        (no_venv_module, 'apt install python3.11-venv'),
        (
            pip_that_says('NewConnectionError: ...\nNo matching distribution for x'),
            'No package registry can be reached',
        ),
        (
            pip_that_says('ERROR: No matching distribution found for torch==2.13.0'),
            'The package registry has no torch==2.13.0 for this Python',
        ),
        (
            pip_that_says('OSError: [Errno 28] No space left on device'),
            'The disk is full',
        ),
        (
            pip_that_says('c++: fatal error: Killed signal terminated program'),
            'MAX_JOBS=1',
        ),
        (
            pip_that_says(
                'WARNING: Retrying after NewConnectionError\n'
                'ERROR: Failed building wheel for mmcv'
            ),
            'mmcv does not compile here',
        ),
        (pip_that_says('ERROR: something else'), 'failed (ERROR: something else)'),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(machine, fault, sentence):
    fault(machine)
    result = machine.set_up()
    assert result.code == 1
    assert sentence in result.error
    assert len(result.error.strip().splitlines()) == 1
    assert not list(machine.root.glob('.venv/.stmixer_mm_setup.json'))


def test_missing_compiler_is_said_before_anything_is_downloaded(machine):
    remove_compiler(machine)
    assert machine.set_up().pip == []


def test_another_python_is_used_where_the_default_does_not_fit(machine):
    too_new_python(machine)
    machine.add_python('other', 'python3.10', version=[3, 10, 2])
    os.symlink(machine.root.parent / 'other/bin/python3.10', machine.bin / 'x')
    machine.add_program(
        'python3.10', f'exec {machine.root.parent}/other/bin/python3.10 "$@"'
    )
    result = machine.set_up()
    assert result.code == 0, result.error
    assert 'python3.10' in result.output


def test_environment_that_is_given_keeps_its_torch(machine):
    python = machine.add_python('mine', 'python')
    machine.install(python, 'torch', '2.5.1')
    result = machine.set_up('--python', str(python))
    assert result.code == 0, result.error
    assert installed(python)['torch'] == '2.5.1'
    assert not machine.venv_python.exists()
    assert machine.set_up('--python', str(python)).pip == []


@pytest.mark.parametrize(
    ('prepare', 'sentence'),
    [
        (lambda m, p: m.install(p, 'torch', '2.0.1'), 'has torch 2.0.1 but 2.1'),
        (lambda m, p: m.change(p, version=[3, 9, 1]), 'is Python 3.9.1'),
        (lambda m, p: shutil.rmtree(p.parents[1] / 'lib'), 'has no pip'),
        (lambda m, p: p.unlink(), 'is no Python that runs'),
        (
            lambda m, p: (p.parents[1] / 'stdlib/EXTERNALLY-MANAGED').touch(),
            'belongs to the operating system',
        ),
        (lambda m, p: m.install(p, 'mmcv-lite', '2.1.0'), 'uninstall mmcv-lite'),
    ],
)
def test_environment_that_cannot_be_used_is_refused(machine, prepare, sentence):
    python = machine.add_python('mine', 'python')
    prepare(machine, python)
    result = machine.set_up('--python', str(python))
    assert result.code == 1
    assert sentence in result.error
    assert len(result.error.strip().splitlines()) == 1


def test_opencv_that_is_there_is_kept_unless_it_does_not_import(machine):
    python = machine.add_python('mine', 'python')
    machine.install(python, 'opencv-python', '4.10.0')
    assert 'opencv-python-headless' not in str(
        machine.set_up('--python', str(python)).pip
    )
    other = machine.add_python('server', 'python', cv2_works=False)
    machine.install(other, 'opencv-python', '4.10.0')
    assert 'opencv-python-headless' in str(machine.set_up('--python', str(other)).pip)


@pytest.mark.parametrize('victim', ['torch', 'mmcv'])
def test_killed_while_it_installs_it_goes_on(machine, victim):
    machine.change(machine.bin / 'python3', killed_at=victim)
    assert machine.set_up().code == -9
    machine.change(machine.venv_python, killed_at=None)
    result = machine.set_up()
    assert result.code == 0, result.error
    assert f'{victim}-' in result.output
    record = machine.venv_python.parents[1] / 'lib'
    assert all((info / 'RECORD').is_file() for info in record.glob('*.dist-info'))
    assert machine.set_up().pip == []


@pytest.mark.parametrize(
    ('record', 'whole'),
    [
        ('a.py,sha256=x,6\na.pyc,,\nx-1.dist-info/METADATA,,99\n', True),
        ('a.py,sha256=x,7\n', False),
        ('a.py,sha256=x,6\nb.py,,\n', False),
        ('', False),
        (None, False),
    ],
)
def test_half_installed_is_told_by_the_list_of_files(tmp_path, record, whole):
    info = tmp_path / 'x-1.dist-info'
    info.mkdir()
    (info / 'METADATA').touch()
    (tmp_path / 'a.py').write_text('x = 1\n')
    if record is not None:
        (info / 'RECORD').write_text(record)
    assert setup_env.is_whole(info) == whole


def test_half_made_venv_is_made_anew(machine):
    machine.venv_python.parent.mkdir(parents=True)
    (machine.root / '.setup').mkdir()
    (machine.root / '.setup/making-venv').touch()
    machine.venv_python.symlink_to(sys.executable)  # runs, but has no pip
    result = machine.set_up()
    assert result.code == 0, result.error
    assert 'making .venv' in result.output


@pytest.mark.parametrize('change', ['pins', 'torch', 'version', 'half a stamp'])
def test_stamp_is_stale_once_something_changed(machine, change):
    machine.set_up()
    assert machine.set_up().pip == []
    lib = machine.venv_python.parents[1] / 'lib'
    if change == 'pins':
        with (machine.root / 'setup.cfg').open('a') as file:
            file.write('\n# changed\n')
    elif change == 'torch':
        shutil.rmtree(lib / 'torch-2.13.0.dist-info')
        machine.install(machine.venv_python, 'torch', '2.9.0')
    elif change == 'version':
        shutil.rmtree(lib / 'mmdet-3.3.0.dist-info')
        machine.install(machine.venv_python, 'mmdet', '3.2.0')
    else:
        stamp = machine.venv_python.parents[1] / '.stmixer_mm_setup.json'
        stamp.write_text(stamp.read_text()[:20])
    result = machine.set_up()
    assert result.code == 0, result.error
    assert result.pip
    assert installed(machine.venv_python)['mmdet'] == '3.3.0'
    assert machine.set_up().pip == []


def test_extras_add_up(machine):
    machine.set_up('--extras', 'test')
    machine.set_up('--extras', 'lint')
    assert machine.set_up('--extras', 'test').pip == []
    assert machine.set_up().pip == []


def test_disk_that_is_too_small_is_said_with_figures(monkeypatch, tmp_path):
    free = SimpleNamespace(free=0.7 * setup_env.GB)
    monkeypatch.setattr(setup_env.shutil, 'disk_usage', lambda _: free)
    setup_env.check_disk(tmp_path, 0.6 * setup_env.GB, 'it')
    with pytest.raises(setup_env.SetupError, match=r'0\.7 GB free but it needs 2\.5'):
        setup_env.check_disk(tmp_path, setup_env.DISK_WITH_TORCH, 'it')


@pytest.mark.parametrize(
    ('cores', 'gigabytes', 'jobs'), [(2, 23, 2), (64, 8, 8), (4, 0.5, 1)]
)
def test_compile_jobs_fit_cores_and_memory(cores, gigabytes, jobs):
    assert setup_env.compile_jobs(cores, gigabytes * setup_env.GB) == jobs


@pytest.mark.parametrize(
    ('torch', 'held'),
    [
        (None, []),
        ('2.13.0+cpu', ['torch===2.13.0+cpu']),
        ('2.1.2', ['torch===2.1.2', 'numpy<2']),
    ],
)
def test_pip_is_held_to_the_torch_at_hand(torch, held):
    packages = {'torch': torch} if torch else {}
    pip = setup_env.Pip(SimpleNamespace(packages=packages), lock=None)
    assert pip.constraints() == held


@pytest.mark.parametrize(
    ('line', 'note'),
    [
        ('  [12/77] c++ -MMD -MF x.o', 'compiled 12 of 77 files'),
        ('Progress 5000000 of 20000000', 'downloaded 5 of 20 MB'),
        ('Collecting torch==2.13.0', 'Collecting torch==2.13.0'),
        ('  Requirement already satisfied: x', ''),
    ],
)
def test_progress_is_read_from_pips_output(line, note):
    assert setup_env.interesting(line) == note
