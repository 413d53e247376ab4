"""The set-up's laws, in real environments with a stand-in for pip."""

import json
import shutil
import subprocess
import sys
import venv

import pytest
from run_tool import ROOT

# Installs empty packages; files beside it stand for what goes wrong.
PIP = """
import json, os, signal, sys
from pathlib import Path

site = Path(__file__).parents[1]
command, *options = sys.argv[1:]
with open(site / 'calls', 'a') as calls:
    calls.write(json.dumps(sys.argv[1:]) + '\\n')
if (site / 'fails').exists():
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
        (package / 'ops.py').write_text('1 / 0' if stale else '')
"""


class Machine:
    """A checkout, and a virtual environment with the stand-in for pip."""

    def __init__(self, folder):
        self.root = folder / 'checkout'
        (self.root / 'tools').mkdir(parents=True)
        self.tool = shutil.copy(ROOT / 'tools/setup_env.py', self.root / 'tools')
        shutil.copytree(ROOT / 'requirements', self.root / 'requirements')
        venv.create(self.root / '.venv', symlinks=True)
        self.site = next((self.root / '.venv/lib').glob('*/site-packages'))
        self.install('pip', '26.3')
        (self.site / 'pip').mkdir()
        (self.site / 'pip/__main__.py').write_text(PIP)

    def install(self, name, version):
        for old in self.site.glob(f'{name}-*'):
            shutil.rmtree(old)
        info = self.site / f'{name}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')
        (info / 'INSTALLER').touch()

    def versions(self):
        infos = self.site.glob('*.dist-info')
        return dict(info.name[: -len('.dist-info')].split('-', 1) for info in infos)

    def set_up(self, *extras):
        """Return the finished process, with the calls of pip as ``pip``."""
        calls = self.site / 'calls'
        calls.write_text('')
        command = [sys.executable, '-IS', self.tool, '--extras', *extras]
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
    assert [versions[name] for name in ('torch', 'mmcv')] == ['2.13.0', '2.1.0']
    packages, opencv, hosts, itself = first.pip
    assert any(option.endswith('torch.txt') for option in packages)
    assert opencv[-1].endswith('opencv.txt')
    assert {'--no-deps', '--no-build-isolation'} < set(hosts) & set(itself)
    assert nothing_is_left_to_do(machine)
    machine.set_up('test')
    machine.set_up('lint')
    assert {'pytest', 'ruff'} < set(machine.versions())
    assert nothing_is_left_to_do(machine, 'test')
    machine.install('mmdet', '3.2.0')  # for which the stamp is stale
    assert machine.set_up().pip
    assert nothing_is_left_to_do(machine)


def test_torch_and_cv2_that_are_there_are_left_alone(machine):
    machine.install('torch', '2.7.1')
    (machine.site / 'cv2').mkdir()
    (machine.site / 'stale').touch()
    result = machine.set_up()
    assert result.returncode == 0, result.stderr
    assert 'torch===2.7.1' in result.pip[0]
    assert machine.versions()['torch'] == '2.7.1'
    assert 'opencv' not in str(machine.versions())
    # mmcv that does not import with it is compiled again without the cache.
    assert {'--no-cache-dir', '--force-reinstall'} < set(result.pip[2])


@pytest.mark.parametrize('victim', ['torch', 'mmcv'])
def test_killed_while_it_installs_it_continues(machine, victim):
    (machine.site / f'killed-at-{victim}').touch()
    assert machine.set_up().returncode == -9
    (machine.site / f'killed-at-{victim}').unlink()
    result = machine.set_up()
    assert result.returncode == 0, result.stderr
    assert all((i / 'INSTALLER').exists() for i in machine.site.glob('*.dist-info'))
    assert nothing_is_left_to_do(machine)


def test_a_failing_step_is_named(machine):
    (machine.site / 'fails').touch()
    result = machine.set_up()
    assert result.returncode == 1
    assert 'installing torch' in result.stderr and 'ERROR: something' in result.stderr
    assert not (machine.root / '.venv/.stmixer_mm_setup.json').exists()
