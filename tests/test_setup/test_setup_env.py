"""The set-up's laws, in real environments with a stand-in for pip."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_tool import load_tool

ROOT = Path(__file__).resolve().parents[2]

# Installs empty packages; files beside it say what goes wrong.
PIP = """
import json, os, signal, sys
from pathlib import Path

site = Path(__file__).parents[1]
command, *options = sys.argv[1:]
with open(site / 'calls', 'a') as calls:
    calls.write(json.dumps(sys.argv[1:]) + '\\n')
if (site / 'offline').exists() or (site / 'fails').exists() and command == 'install':
    sys.exit('ERROR: something')
while options:
    option = options.pop(0)
    wanted = [] if option.startswith('-') else [option]
    if option == '-r':
        wanted = [x for x in Path(options.pop(0)).read_text().split('\\n') if x[:1] != '#']
    for name, _, version in (line.partition('==') for line in wanted if line):
        name = 'stmixer_mm' if name[0] == '/' else name.split('<')[0].split('>')[0]
        if any(site.glob(f'{name}-*')) and '--force-reinstall' not in sys.argv:
            continue
        info = site / f'{name}-{version.strip("=") or 1}.dist-info'
        info.mkdir(exist_ok=True)
        (info / 'METADATA').write_text(f'Name: {name}\\nVersion: {version or 1}\\n')
        if (site / f'killed-at-{name}').exists():
            os.kill(os.getppid(), signal.SIGKILL)
            sys.exit()
        (info / 'INSTALLER').touch()
        package = site / {'opencv-python-headless': 'cv2'}.get(name, name)
        package.mkdir(exist_ok=True)
        stale = (site / 'stale').exists() and '--no-cache-dir' not in sys.argv
        broken = stale or (site / 'broken').exists()
        (package / 'ops.py').write_text('1 / 0' if broken else '')
"""


class Machine:
    """A checkout, and a virtual environment with the stand-in for pip."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / 'checkout'
        (self.root / 'tools').mkdir(parents=True)
        self.tool = shutil.copy(ROOT / 'tools/setup_env.py', self.root / 'tools')
        shutil.copytree(ROOT / 'requirements', self.root / 'requirements')
        venv.create(self.root / '.venv', symlinks=True)
        self.python = self.root / '.venv/bin/python'
        self.site = next((self.root / '.venv/lib').glob('*/site-packages'))
        self.install('pip', '26.3')
        (self.site / 'pip').mkdir()
        (self.site / 'pip/__main__.py').write_text(PIP)

    def install(self, name: str, version: str) -> None:
        for old in self.site.glob(f'{name}-*'):
            shutil.rmtree(old)
        info = self.site / f'{name}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')
        (info / 'INSTALLER').touch()

    def versions(self) -> dict:
        infos = self.site.glob('*.dist-info')
        return dict(info.name[: -len('.dist-info')].split('-', 1) for info in infos)

    def set_up(self, *extras: str) -> subprocess.CompletedProcess:
        """Return what became of it, with the calls of pip as ``pip``."""
        calls = self.site / 'calls'
        calls.write_text('')
        command = [sys.executable, '-IS', self.tool, '--extras', *extras]
        done = subprocess.run(command, capture_output=True, text=True)
        done.pip = [json.loads(line) for line in calls.read_text().splitlines()]
        return done


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def tool():
    return load_tool('tools/setup_env.py')


def nothing_is_left_to_do(machine, *extras):
    again = machine.set_up(*extras)
    output = again.stdout + again.stderr
    return (again.returncode, output, again.pip) == (0, '', [])


def test_everything_is_installed_once_and_in_order(machine):
    first = machine.set_up()
    assert (first.returncode, first.stderr) == (0, '')
    versions = machine.versions()
    assert [versions[name] for name in ('torch', 'mmcv')] == ['2.13.0', '2.1.0']
    packages, opencv, hosts, itself = first.pip
    assert any(option.endswith('torch.txt') for option in packages)
    assert opencv[-1].endswith('opencv.txt')
    assert {'--no-deps', '--no-build-isolation'} < set(hosts) & set(itself)
    assert '--no-cache-dir' not in hosts
    assert nothing_is_left_to_do(machine)
    machine.set_up('test')
    machine.set_up('lint')
    assert {'pytest', 'ruff'} < set(machine.versions())
    assert nothing_is_left_to_do(machine, 'test')


def test_torch_and_cv2_that_are_there_are_left_alone(machine):
    machine.install('torch', '2.2.1')
    (machine.site / 'cv2').mkdir()
    packages = machine.set_up().pip[0]
    assert {'torch===2.2.1', 'numpy<2'} < set(packages)
    assert machine.versions()['torch'] == '2.2.1'
    assert 'opencv' not in str(machine.versions())


def test_mmcv_that_does_not_import_is_compiled_anew_without_the_cache(machine):
    (machine.site / 'stale').touch()
    result = machine.set_up()
    assert result.returncode == 0, result.stderr
    assert {'--no-cache-dir', '--force-reinstall'} < set(result.pip[3])


@pytest.mark.parametrize('victim', ['torch', 'mmcv'])
def test_killed_while_it_installs_it_goes_on(machine, victim):
    (machine.site / f'killed-at-{victim}').touch()
    assert machine.set_up().returncode == -9
    (machine.site / f'killed-at-{victim}').unlink()
    result = machine.set_up()
    assert result.returncode == 0, result.stderr
    assert f'{victim}-' in result.stdout
    assert all((i / 'INSTALLER').exists() for i in machine.site.glob('*.dist-info'))
    assert nothing_is_left_to_do(machine)


def test_stamp_is_stale_once_something_changed(machine):
    machine.set_up()
    stamp = machine.root / '.venv/.stmixer_mm_setup.json'
    for change in (
        lambda: (machine.root / 'requirements/lint.txt').write_text('ruff==0.1.0'),
        lambda: machine.install('torch', '2.9.0'),
        lambda: machine.install('mmdet', '3.2.0'),
        lambda: stamp.write_text(stamp.read_text()[:20]),
    ):
        change()
        assert machine.set_up().pip
    assert nothing_is_left_to_do(machine)


def test_venv_is_made_and_then_used(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, 'ROOT', tmp_path)
    python = tmp_path / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.symlink_to(tmp_path / 'a Python that is gone')
    commands = []
    monkeypatch.setattr(tool.os, 'execv', lambda _, command: commands.append(command))
    monkeypatch.setattr(tool, 'stamped_extras', lambda: {'test'})
    tool.main(['--extras', 'test'])
    assert commands == [[str(python), tool.__file__, '--here', '--extras', 'test']]
    subprocess.run([python, '-c', ''], check=True)


@pytest.mark.parametrize(
    ('owner', 'name', 'value', 'sentence'),
    [
        (sys, 'version_info', (3, 13, 0), 'Python 3.10 to 3.12 is needed'),
        (shutil, 'which', lambda _: None, 'there is no c++: install it'),
        (sysconfig, 'get_path', lambda _: '/no', 'there is no /no/Python.h: install'),
        (shutil, 'disk_usage', lambda _: SimpleNamespace(free=1e9), 'has 0.9 GB free'),
    ],
)
def test_what_is_missing_is_said_beforehand(
    tool, monkeypatch, tmp_path, owner, name, value, sentence
):
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as error:
        patch.setattr(tool, 'LOG', tmp_path / 'log' / 'log.txt')
        patch.setattr(tool, 'STAMP', tmp_path / 'stamp')
        patch.setattr(tool, 'BUSY', tmp_path / 'busy')
        patch.setattr(tool, 'installed', lambda _: None)
        patch.setattr(tool, 'run_step', None)
        patch.setattr(owner, name, value)
        tool.main(['--here'])
    assert sentence in str(error.value)
    assert not (tmp_path / 'busy').exists()


@pytest.mark.parametrize(
    ('fault', 'sentence'),
    [
        ('offline', 'set-up: No package registry can be reached'),
        ('fails', 'set-up: step "installing torch and what the packages need" failed'),
        ('broken', 'set-up: step "importing mmcv.ops" failed'),
    ],
)
def test_failing_step_is_named(machine, fault, sentence):
    (machine.site / fault).touch()
    result = machine.set_up()
    assert result.returncode == 1
    assert result.stderr.startswith(sentence)
    last_line = {'fails': 'ERROR: something', 'broken': 'ZeroDivisionError'}
    assert last_line.get(fault, 'No package') in result.stderr
    assert not (machine.root / '.venv/.stmixer_mm_setup.json').exists()
