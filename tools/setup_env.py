#!/usr/bin/env python3
"""Set up the environment in which the commands of the Makefile run.

That is ``.venv``, made by the Python that runs this, or with ``--here`` the environment
of that Python. It gets what ``requirements/`` lists; an installed torch is left alone. A
stamp in the environment is written last; while it fits, a call returns at once. Killed
at any moment and started again, the set-up continues.
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
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements'
EXTRAS = {'test': 'tests.txt', 'lint': 'lint.txt'}
LOG = ROOT / '.setup' / 'log.txt'
STAMP = Path(sys.prefix, '.stmixer_mm_setup.json')
BUSY = Path(sys.prefix, '.stmixer_mm_setup.busy')
GB = 1024**3
# Debug information and -O3 would double the time and gain nothing on the ops' speed.
COMPILE = {'CFLAGS': '-g0 -O1 -w', 'MMCV_WITH_OPS': '1'}
WITHOUT_CUDA = {'CUDA_VISIBLE_DEVICES': '', 'FORCE_CUDA': '0'}


class SetupError(Exception):
    """A sentence with what is wrong and what to do."""


def installed(name):
    """Return the version of a distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def stamp_key():
    """Return what has to be unchanged for a stamp to fit."""
    sources = [Path(__file__), *sorted(REQUIREMENTS.glob('*.txt'))]
    digest = hashlib.sha256(b''.join(file.read_bytes() for file in sources))
    hosts = (REQUIREMENTS / 'hosts.txt').read_text().split()
    names = [word.partition('==')[0] for word in hosts if '==' in word]
    versions = [installed(name) for name in ('torch', 'stmixer-mm', *names)]
    return [str(ROOT), digest.hexdigest(), *versions]


def stamped_extras():
    """Return the extras that a fitting stamp names, None without such a stamp."""
    try:
        stamp = json.loads(STAMP.read_text())
        return set(stamp['extras']) if stamp['key'] == stamp_key() else None
    except (OSError, ValueError):
        return None


def check_python():
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        raise SetupError(
            f'{sys.prefix} has Python {sys.version.split()[0]} but Python 3.10 to 3.12 is '
            'needed: name another one with PYTHON=/path/to/python, or remove .venv if it '
            'is that folder.'
        )


def run_step(log, what, command, **env):
    """Run a command with its output in the log."""
    print(f'[set-up] {what}', flush=True)
    log.write(f'$ {shlex.join(map(str, command))}\n'.encode())
    log.flush()
    if subprocess.run(command, stdout=log, stderr=log, env=os.environ | env).returncode:
        lines = LOG.read_text(errors='replace').strip().splitlines()[-15:]
        raise SetupError('\n  '.join([f'step "{what}" failed, see {LOG}:', *lines]))


def pip_install(log, what, *options, **env):
    command = [sys.executable, '-m', 'pip', 'install', '--no-input', *options]
    run_step(log, what, command, **env)


def listed_in(*names):
    """Return pip's options for requirement files."""
    return [option for name in names for option in ('-r', str(REQUIREMENTS / name))]


def python_c(code):
    """Return a command; ``-I`` as the package would be found here uninstalled."""
    return [sys.executable, '-I', '-W', 'ignore', '-c', code]


def runs(log, code):
    """Return whether a new process of this Python runs ``code``."""
    return not subprocess.run(python_c(code), stdout=log, stderr=log).returncode


def make_venv():
    """Return the Python of ``.venv``, made where it is missing or its base is gone."""
    folder = ROOT / '.venv'
    python = folder / 'bin' / 'python'
    if not python.exists():
        check_python()
        print(f'[set-up] making .venv with {sys.executable}', flush=True)
        venv.create(folder, clear=python.is_symlink(), symlinks=True)
    return str(python)


def remove_half_installed():
    """Make pip install again what an interrupted pip left incomplete.

    It takes a distribution for installed once its METADATA is there, but writes
    INSTALLER after all other files.
    """
    since = BUSY.stat().st_mtime - 1
    for folder in {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}:
        for info in Path(folder).glob('*.dist-info'):
            if info.stat().st_mtime >= since and not (info / 'INSTALLER').exists():
                shutil.rmtree(info)


def install_hosts(log, cuda):
    """Install the OpenMMLab packages, mmcv compiled and proved by an import.

    pip keeps a wheel that it has built under a key that knows nothing of torch, so one
    that does not import is compiled again without that cache.
    """
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    # A job peaks near 1 GB.
    jobs = min(len(os.sched_getaffinity(0)), memory // (2 * GB))
    jobs = os.environ.get('MAX_JOBS', str(max(1, jobs)))
    env = {'MAX_JOBS': jobs, **COMPILE, **({} if cuda else WITHOUT_CUDA)}
    options = ['-v', '--no-deps', '--no-build-isolation', *listed_in('hosts.txt')]
    what = f'compiling mmcv with MAX_JOBS={jobs} (6 minutes with 2)'
    pip_install(log, what, *options, *['--no-cache-dir'] * cuda, **env)
    if not runs(log, 'import mmcv.ops'):
        options += ['--no-cache-dir', '--force-reinstall']
        pip_install(log, f'{what} for another torch', *options, **env)
        run_step(log, 'importing mmcv.ops', python_c('import mmcv.ops'))


def install_all(log, extras):
    """Bring the environment of this Python to what is wanted, and stamp it."""
    if BUSY.exists():
        remove_half_installed()
    check_python()
    extras = sorted({*extras, *(stamped_extras() or ())})
    BUSY.touch()
    STAMP.unlink(missing_ok=True)
    if not installed('pip'):
        run_step(log, 'installing pip', [sys.executable, '-m', 'ensurepip'])
    torch = installed('torch')
    wanted = [f'torch==={torch}'] if torch else listed_in('torch.txt')
    wanted += listed_in('build.txt', 'runtime.txt', 'hosts_need.txt')
    wanted += listed_in(*(EXTRAS[extra] for extra in extras))
    pip_install(log, 'installing torch and what the packages need', *wanted)
    if not runs(log, 'import cv2'):
        options = ['--no-deps', '--force-reinstall', *listed_in('opencv.txt')]
        pip_install(log, 'installing OpenCV', *options)

    gpu = 'import torch; assert torch.cuda.is_available()'
    cuda = bool(shutil.which('nvcc')) and runs(log, gpu)
    try:
        install_hosts(log, cuda)
    except SetupError as error:
        if not cuda:
            raise
        print(f'[set-up] without CUDA, as mmcv does not compile with it: {error}')
        install_hosts(log, cuda=False)
    options = ['--no-deps', '--no-build-isolation', '--editable', str(ROOT)]
    pip_install(log, 'installing this package (editable)', *options)
    run_step(log, 'importing stmixer_mm', python_c('import stmixer_mm'))
    STAMP.write_text(json.dumps({'key': stamp_key(), 'extras': extras}))
    BUSY.unlink()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--here', action='store_true', help='set up this environment')
    parser.add_argument('--extras', nargs='*', choices=EXTRAS, default=[])
    args = parser.parse_args(argv)
    try:
        if not args.here:
            command = [make_venv(), __file__, '--here', '--extras', *args.extras]
            os.execv(command[0], command)
        stamped = stamped_extras()
        if stamped is None or not stamped.issuperset(args.extras):
            LOG.parent.mkdir(exist_ok=True)
            with LOG.open('ab') as log:
                fcntl.flock(log, fcntl.LOCK_EX)  # wait for another set-up, or its pip
                log.truncate(0)
                install_all(log, args.extras)
    except (OSError, SetupError) as error:
        sys.exit(f'set-up: {error}')
    except KeyboardInterrupt:
        sys.exit('set-up: interrupted; the same command continues.')


if __name__ == '__main__':
    main()
