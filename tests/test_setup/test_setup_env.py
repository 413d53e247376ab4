"""The set-up's laws, in real environments with a stand-in for pip."""

import json
import shutil
import subprocess
import sys
import venv

import pytest
from run_tool import ROOT, load_tool

# Installs empty packages; files beside it stand for what goes wrong.
PIP = """
import json, os, shutil, signal, sys
from pathlib import Path

site = Path(__file__).parents[1]
command, *options = sys.argv[1:]
with open(site / 'calls', 'a') as calls:
    calls.write(json.dumps(sys.argv[1:]) + '\\n')
if (site / 'fails').exists():
    sys.exit('ERROR: something')
if command == 'uninstall':
    [shutil.rmtree(each) for each in site.glob(options[-1].replace('-', '_') + '-*')]
    options = []
while options:
    option = options.pop(0)
    wanted = [] if option.startswith('-') else [option]
    if option == '-r':
        wanted = [x for x in Path(options.pop(0)).read_text().split('\\n') if x[:1] != '#']
    for name, _, version in (line.partition('==') for line in wanted if line):
        name = 'stmixer_mm' if name[0] == '/' else name.split('<')[0].split('>')[0].replace('-', '_')
        if any(site.glob(f'{name}-*')) and '--force-reinstall' not in sys.argv:
            continue
        info = site / f'{name}-{version.strip("=") or 1}.dist-info'
        info.mkdir(exist_ok=True)
        (info / 'METADATA').write_text(f'Name: {name}\\nVersion: {version or 1}\\n')
        if (site / f'killed-at-{name}').exists():
            os.kill(os.getppid(), signal.SIGKILL)
            sys.exit()
        package = site / {'opencv_python_headless': 'cv2'}.get(name, name)
        package.mkdir(exist_ok=True)
        (package / 'ops.py').touch()
"""


class Machine:
    """A checkout, and a virtual environment with the stand-in for pip."""

    def __init__(self, folder):
        self.root = folder / 'checkout'
        (self.root / 'tools').mkdir(parents=True)
        self.tool = shutil.copy(ROOT / 'tools/setup_env.py', self.root / 'tools')
        shutil.copytree(ROOT / 'requirements', self.root / 'requirements')
        self.site = self.make_venv()

    def make_venv(self):
        venv.create(self.root / '.venv', symlinks=True)
        site = next((self.root / '.venv/lib').glob('*/site-packages'))
        (site / 'pip').mkdir()
        (site / 'pip/__main__.py').write_text(PIP)
        return site

    def install(self, name, version):
        for old in self.site.glob(f'{name}-*'):
            shutil.rmtree(old)
        info = self.site / f'{name}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')

    def versions(self):
        infos = self.site.glob('*.dist-info')
        return dict(info.name[: -len('.dist-info')].split('-', 1) for info in infos)

    def set_up(self, *extras, mmcv=()):
        """Return the finished process, with the calls of pip as ``pip``."""
        calls = self.site / 'calls'
        calls.write_text('')
        command = [sys.executable, '-IS', self.tool, '--extras', *extras, *mmcv]
        done = subprocess.run(command, capture_output=True, text=True)
        done.pip = [json.loads(line) for line in calls.read_text().splitlines()]
        return done


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def nothing_is_left_to_do(machine, *extras):
    again = machine.set_up(*extras)
    output = again.stdout + again.stderr
    return (again.returncode, output, again.pip) == (0, '', [])


def test_everything_is_installed_once_and_in_order(machine):
    first = machine.set_up()
    assert (first.returncode, first.stderr) == (0, '')
    versions = machine.versions()
    assert [versions[name] for name in ('torch', 'mmcv_lite')] == ['2.13.0', '2.1.0']
    packages, lite, itself = first.pip
    assert any(option.endswith('torch.txt') for option in packages)
    assert any(option.endswith('opencv.txt') for option in packages)
    assert '--no-deps' in lite and {'--no-deps', '--no-build-isolation'} < set(itself)
    assert nothing_is_left_to_do(machine)
    machine.set_up('test')
    machine.set_up('lint')
    assert {'pytest', 'ruff'} < set(machine.versions())
    assert nothing_is_left_to_do(machine, 'test')
    # The stamp is stale once something changed.
    stamp = machine.root / '.venv/.stmixer_mm_setup.json'
    for change in (
        lambda: (machine.root / 'requirements/lint.txt').write_text('ruff==0.1.0'),
        lambda: machine.install('torch', '2.9.0'),
        lambda: stamp.write_text(stamp.read_text()[:20]),
    ):
        change()
        assert machine.set_up().pip
    assert nothing_is_left_to_do(machine)


def test_torch_and_cv2_that_are_there_are_left_alone(machine):
    machine.install('torch', '2.7.1')
    (machine.site / 'cv2').mkdir()
    result = machine.set_up()
    assert result.returncode == 0, result.stderr
    assert 'torch===2.7.1' in result.pip[0]
    assert machine.versions()['torch'] == '2.7.1'
    assert 'opencv' not in str(machine.versions())


def test_mmcv_is_compiled_where_it_is_asked_for_and_then_left_alone(machine):
    machine.set_up()
    result = machine.set_up(mmcv=('--mmcv', 'full'))
    assert result.returncode == 0, result.stderr
    assert machine.versions()['mmcv'] == '2.1.0'
    assert 'mmcv_lite' not in machine.versions()
    (compiling,) = (call for call in result.pip if 'mmcv.txt' in str(call))
    assert {'--no-cache-dir', '--no-build-isolation'} < set(compiling)
    assert nothing_is_left_to_do(machine)
    # One that does not import, as it was compiled for another torch, goes.
    machine.install('torch', '2.9.0')
    (machine.site / 'mmcv/ops.py').write_text('1 / 0')
    machine.set_up()
    assert 'mmcv_lite' in machine.versions() and 'mmcv' not in machine.versions()


def test_an_environment_whose_set_up_was_killed_is_made_anew(machine, monkeypatch):
    (machine.site / 'killed-at-torch').touch()
    assert machine.set_up().returncode == -9
    tool = load_tool('tools/setup_env.py')
    monkeypatch.setattr(tool, 'ROOT', machine.root)
    tool.make_venv()
    assert not (machine.site / 'torch-2.13.0.dist-info').exists()


def test_a_failing_step_is_named(machine):
    (machine.site / 'fails').touch()
    result = machine.set_up()
    assert result.returncode == 1
    assert 'installing torch' in result.stderr and 'ERROR: something' in result.stderr
    assert not (machine.root / '.venv/.stmixer_mm_setup.json').exists()


def test_a_python_that_does_not_fit_is_named_before_anything_is_done(
    monkeypatch, tmp_path
):
    tool = load_tool('tools/setup_env.py')
    monkeypatch.setattr(tool, 'LOG', tmp_path / 'log')
    monkeypatch.setattr(tool, 'STAMP', tmp_path / 'stamp')
    monkeypatch.setattr(sys, 'version_info', (3, 14, 0))
    with pytest.raises(SystemExit, match=r'set-up: .* Python 3.10 to 3.13'):
        tool.main(['--here'])


def test_venv_is_made_again_where_its_python_is_gone(monkeypatch, tmp_path):
    tool = load_tool('tools/setup_env.py')
    monkeypatch.setattr(tool, 'ROOT', tmp_path)
    python = tmp_path / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.symlink_to(tmp_path / 'a Python that is gone')
    assert tool.make_venv() == str(python)
    subprocess.run([python, '-m', 'pip', '--version'], check=True)
    assert (tmp_path / '.venv/bin/pip').exists()
