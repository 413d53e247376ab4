#!/usr/bin/env python3
"""Set up the environment in which the commands of the Makefile run.

That is ``.venv`` (with ``--hosts onedl`` ``.venv_onedl``), made by the Python that runs
this, or with ``--here`` the environment of that Python. It gets what ``requirements/`` lists; a torch, an OpenCV and a compiled
mmcv that are there and work are left alone. A stamp is written last; while it fits, a
call returns at once. A ``.venv`` whose set-up was killed is made anew.
"""

import argparse
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import venv
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements'
EXTRAS = {'test': 'tests.txt', 'lint': 'lint.txt', 'docs': 'docs.txt'}
HOSTS = {'openmmlab': 'hosts.txt', 'onedl': 'hosts_onedl.txt'}
LOG = ROOT / '.setup' / 'log.txt'
STAMP = Path(sys.prefix, '.stmixer_mm_setup.json')
BUSY = '.stmixer_mm_setup.busy'
GB = 1024**3
# Debug information and -O3 would double the time and gain nothing on the ops' speed.
COMPILE = {'CFLAGS': '-g0 -O1 -w', 'MMCV_WITH_OPS': '1'}
WITHOUT_CUDA = {'CUDA_VISIBLE_DEVICES': '', 'FORCE_CUDA': '0'}
NVCC_FITS = """
import subprocess, torch
version = subprocess.check_output(['nvcc', '--version'], text=True)
assert torch.cuda.is_available() and f'release {torch.version.cuda},' in version
"""


class SetupError(Exception):
    """A sentence with what is wrong and what to do."""


def installed(name):
    """Return the version of a distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def stamp_key(hosts):
    """Return what has to be unchanged for a stamp to fit."""
    sources = [Path(__file__), *sorted(REQUIREMENTS.glob('*.txt'))]
    digest = hashlib.sha256(b''.join(file.read_bytes() for file in sources))
    return [str(ROOT), digest.hexdigest(), installed('torch'), hosts]


def stamped_extras(hosts):
    """Return the extras that a fitting stamp names, None without such a stamp."""
    try:
        stamp = json.loads(STAMP.read_text())
        return set(stamp['extras']) if stamp['key'] == stamp_key(hosts) else None
    except (OSError, ValueError):
        return None


def check_python():
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise SetupError(
            f'{sys.prefix} has Python {sys.version.split()[0]} but Python 3.10 to 3.13 is '
            'needed: name another one with PYTHON=/path/to/python, or remove .venv if it '
            'is that folder.'
        )


def run_step(log, what, *command, **env):
    """Run Python with its output in the log."""
    print(f'[set-up] {what}', flush=True)
    log.write(f'$ python {shlex.join(command)}\n'.encode())
    log.flush()
    command = [sys.executable, *command]
    if subprocess.run(command, stdout=log, stderr=log, env=os.environ | env).returncode:
        lines = LOG.read_text(errors='replace').strip().splitlines()[-15:]
        raise SetupError('\n  '.join([f'step "{what}" failed, see {LOG}:', *lines]))


def pip(log, what, *options, **env):
    run_step(log, what, '-m', 'pip', *options, **env)


def listed_in(*names):
    """Return pip's options for requirement files."""
    return [option for name in names for option in ('-r', str(REQUIREMENTS / name))]


def runs(log, code):
    """Return whether ``code`` runs; ``-I`` as this package would be found uninstalled."""
    command = [sys.executable, '-I', '-W', 'ignore', '-c', code]
    return not subprocess.run(command, stdout=log, stderr=log).returncode


def make_venv(hosts):
    """Return the Python of ``.venv``, made where it is missing, broken or half set up."""
    folder = ROOT / ('.venv' if hosts == 'openmmlab' else f'.venv_{hosts}')
    python = folder / 'bin' / 'python'
    if not python.exists() or (folder / BUSY).exists():
        check_python()
        print(f'[set-up] making {folder.name} with {sys.executable}', flush=True)
        venv.create(folder, clear=folder.exists(), symlinks=True, with_pip=True)
    return str(python)


def compile_mmcv(log):
    """Compile mmcv's operators against the torch that is there, and prove them.

    pip keeps a wheel that it has built under a key that knows nothing of torch.
    """
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    # A job peaks near 1 GB.
    jobs = max(1, min(len(os.sched_getaffinity(0)), memory // (2 * GB)))
    env = COMPILE | {'MAX_JOBS': os.environ.get('MAX_JOBS', str(jobs))}
    env |= {} if runs(log, NVCC_FITS) else WITHOUT_CUDA
    pip(log, 'installing what compiles mmcv', 'install', *listed_in('build.txt'))
    if installed('mmcv-lite'):
        pip(log, 'removing mmcv-lite', 'uninstall', '-y', 'mmcv-lite')
    options = ['--no-cache-dir', '--no-deps', '--no-build-isolation']
    options += ['--force-reinstall', '-v', *listed_in('mmcv.txt')]
    pip(log, 'compiling mmcv (6 minutes on two cores)', 'install', *options, **env)
    run_step(log, 'importing mmcv.ops', '-I', '-c', 'import mmcv.ops')


def install_mmcv(log, compiled):
    """Install mmcv-lite; mmcv with its operators if asked to, or where CUDA fits."""
    if installed('mmcv') and runs(log, 'import mmcv.ops'):
        return
    if compiled or runs(log, NVCC_FITS):
        try:
            return compile_mmcv(log)
        except SetupError as error:
            if compiled:
                raise
            print(f'[set-up] without compiled operators of mmcv: {error}')
    if installed('mmcv'):
        pip(log, 'removing mmcv, which does not import', 'uninstall', '-y', 'mmcv')
    pip(
        log, 'installing mmcv-lite', 'install', '--no-deps', *listed_in('mmcv_lite.txt')
    )


def install_client(log):
    """Install what the client in JavaScript needs; without npm its test is skipped."""
    if npm := shutil.which('npm'):
        print('[set-up] npm install in demo', flush=True)
        command = [npm, 'install', '--no-audit', '--no-fund', '--prefix', ROOT / 'demo']
        subprocess.run(command, stdout=log, stderr=log)


def install_all(log, extras, compiled, hosts):
    """Bring the environment of this Python to what is wanted, and stamp it."""
    check_python()
    extras = sorted({*extras, *(stamped_extras(hosts) or ())})
    busy = Path(sys.prefix, BUSY)
    busy.touch()
    STAMP.unlink(missing_ok=True)
    torch = installed('torch')
    packages = [f'torch==={torch}'] if torch else listed_in('torch.txt')
    packages += listed_in('runtime.txt', 'hosts_need.txt')
    packages += listed_in(*(EXTRAS[extra] for extra in extras))
    if not runs(log, 'import cv2'):
        packages += listed_in('opencv.txt')
    pip(log, 'installing torch and what the packages need', 'install', *packages)
    install_mmcv(log, compiled)
    packages = listed_in(HOSTS[hosts], 'mmaction2.txt')
    packages += ['--no-build-isolation', '--editable', str(ROOT)]
    if 'test' in extras:
        packages += listed_in('timm.txt')  # with what it needs it would replace torch
    pip(
        log,
        'installing mmdet, mmaction2 and this package',
        'install',
        '--no-deps',
        *packages,
    )
    run_step(log, 'importing stmixer_mm', '-I', '-c', 'import stmixer_mm')
    if 'test' in extras:
        install_client(log)
    STAMP.write_text(json.dumps({'key': stamp_key(hosts), 'extras': extras}))
    busy.unlink()


@contextmanager
def locked_log():
    """The log, while no other set-up (or its pip) has it."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open('ab') as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        yield log


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--here', action='store_true', help='set up this environment')
    parser.add_argument('--extras', nargs='*', choices=EXTRAS, default=[])
    parser.add_argument('--mmcv', choices=['full'], help='compile mmcv with operators')
    parser.add_argument('--hosts', choices=HOSTS, default='openmmlab')
    args = parser.parse_args(argv)
    try:
        if not args.here:
            with locked_log():
                python = make_venv(args.hosts)
            os.execv(python, [python, __file__, '--here', *(argv or sys.argv[1:])])
        stamped = stamped_extras(args.hosts)
        fits = not args.mmcv or installed('mmcv')
        if not fits or stamped is None or not stamped.issuperset(args.extras):
            with locked_log() as log:
                log.truncate(0)
                install_all(log, args.extras, bool(args.mmcv), args.hosts)
    except (OSError, SetupError) as error:
        sys.exit(f'set-up: {error}')
    except KeyboardInterrupt:
        sys.exit('set-up: interrupted; the same command starts it again.')


if __name__ == '__main__':
    main()
