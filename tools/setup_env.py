#!/usr/bin/env python3
"""Set up the environment in which the commands of the Makefile run.

That is ``.venv``, or with ``--python`` the environment of that interpreter. What is
done already is left alone, a torch that is there always. The last act is a stamp in
the environment; while it fits, a call returns at once. Killed at any moment and
started again, the set-up goes on.

It needs the standard library only, of any Python from 3.7: it has to be started
before there is anything else.
"""

import argparse
import collections
import configparser
import contextlib
import csv
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GB = 1024**3

# Measured: an environment with a CPU build of torch takes 1.6 GB, and pip unpacks
# beside it. A CUDA build of torch needs more: there pip's own error is translated.
DISK_WITH_TORCH, DISK_TO_COMPILE = 2.5 * GB, 0.5 * GB

# Debug information and -O3 would double the time and gain nothing on the ops' speed.
COMPILE_FLAGS = '-g0 -O1 -w'

OPENCV_BUILDS = {
    'opencv-python',
    'opencv-contrib-python',
    'opencv-python-headless',
    'opencv-contrib-python-headless',
}

PROBE = """
import json, sys, sysconfig
try:
    from importlib.metadata import distributions
except ImportError:
    distributions = list
def found(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True
print(json.dumps(dict(
    version=sys.version_info[:3],
    prefix=sys.prefix,
    in_venv=sys.prefix != sys.base_prefix,
    venv=found('venv') and found('ensurepip'),
    site_packages=sorted({sysconfig.get_path(p) for p in ('purelib', 'platlib')}),
    stdlib=sysconfig.get_path('stdlib'),
    include=sysconfig.get_path('include'),
    packages={d.metadata['Name']: d.version for d in distributions()
              if d.metadata['Name']},
)))
"""

PROVE_CV2 = 'import cv2'
PROVE_MMCV = 'import mmcv.ops'
PROVE_MMCV_CUDA = (
    'from mmcv.ops import get_compiling_cuda_version as v; '
    "assert v() != 'not available', 'mmcv.ops was compiled without CUDA'"
)
PROVE_PACKAGE = 'import stmixer_mm'
ASK_TORCH_FOR_CUDA = (
    "import torch; print(torch.cuda.is_available() and torch.version.cuda or '')"
)

BELONGS_TO_SYSTEM = (
    'The Python of {python} belongs to the operating system: leave PYTHON out to use '
    '.venv, or name the Python of a virtual environment.'
)
NOT_WRITABLE = (
    '{prefix} cannot be written to: make it writable, or name the Python of another '
    'environment with PYTHON=….'
)
# What pip's or the compiler's output says, and what the user can do about it. What
# pip only warns of (it tries connections again) comes after what is always fatal.
REMEDIES = (
    (
        r'No space left on device|Disk quota exceeded',
        'The disk is full: free some gigabytes (pip uses {tmp} as well, which TMPDIR '
        'moves) and start the same command again.',
    ),
    (r'externally-managed-environment', BELONGS_TO_SYSTEM),
    (r'Permission denied|Read-only file system', NOT_WRITABLE),
    (
        r'Killed signal|fatal error: Killed|internal compiler error: Killed',
        'The compiler ran out of memory: start the same command again with MAX_JOBS=1.',
    ),
    (
        r'Failed building wheel for (?P<what>[\w-]+)',
        '{what} does not compile here: see the end of {log} for the reason, or name an '
        'environment with another torch or Python with PYTHON=….',
    ),
    (
        r'NewConnectionError|Failed to establish a new connection|ConnectionError'
        r'|Name or service not known|Temporary failure in name resolution'
        r'|Connection refused|Network is unreachable|ReadTimeoutError'
        r'|ConnectTimeoutError|ProxyError|SSLError|CERTIFICATE_VERIFY_FAILED',
        'No package registry can be reached: check the network or proxy, or name a '
        'mirror with PIP_INDEX_URL=…, and start the same command again.',
    ),
    (
        r'No matching distribution found for (?P<what>\S+)',
        'The package registry has no {what} for this Python ({python}) and machine: '
        'name another one with PIP_INDEX_URL=… or use another Python with PYTHON=….',
    ),
)


class SetupError(Exception):
    """One sentence that says what is wrong and what to do."""


# ---------------------------------------------------------------- what is asked for


def normalise(name):
    """Return the name of a distribution as registries compare it."""
    return re.sub(r'[-_.]+', '-', name).lower()


def requirement_name(requirement):
    return normalise(re.match(r'[A-Za-z0-9._-]+', requirement).group())


def requirement_pin(requirement):
    """Return '2.1.0' of 'mmcv==2.1.0', None where no version is pinned."""
    pin = re.search(r'==\s*([^,;\s]+)', requirement)
    return pin and pin.group(1)


def version_tuple(version):
    """Return (2, 13) of '2.13.0+cpu', enough to compare releases."""
    return tuple(int(part) for part in re.findall(r'\d+', version)[:2])


class Wanted:
    """What setup.cfg asks for, with the extras that are named.

    Args:
        setup_cfg (Path): the file that holds metadata and pins.
        extras (list[str]): names under ``options.extras_require``.
    """

    def __init__(self, setup_cfg, extras):
        config = configparser.ConfigParser(interpolation=None)
        config.read(str(setup_cfg), encoding='utf-8')

        def lines(section, key):
            return [line for line in config.get(section, key).splitlines() if line]

        section = 'stmixer_mm:environment'
        own = lines('options', 'install_requires')
        self.torch = lines(section, 'torch')
        self.build = lines(section, 'build')
        self.compiled = lines(section, 'compiled')
        self.hosts = lines(section, 'hosts')
        self.plain = [r for r in own if requirement_name(r) != 'torch']
        self.plain += lines(section, 'hosts_need')
        for extra in extras:
            self.plain += lines('options.extras_require', extra)
        (torch_range,) = (r for r in own if requirement_name(r) == 'torch')
        self.oldest_torch = re.search(r'>=\s*([\d.]+)', torch_range).group(1)
        python_range = config.get('options', 'python_requires')
        self.python_from = version_tuple(re.search(r'>=([\d.]+)', python_range)[1])
        self.python_below = version_tuple(re.search(r'<([\d.]+)', python_range)[1])
        self.digest = hashlib.sha256(
            Path(setup_cfg).read_bytes() + Path(__file__).read_bytes()
        ).hexdigest()

    def fits_python(self, version):
        return self.python_from <= tuple(version[:2]) < self.python_below

    @property
    def pythons(self):
        """Return 'Python 3.10 to 3.12'."""
        return 'Python {}.{} to {}.{}'.format(
            *self.python_from, self.python_below[0], self.python_below[1] - 1
        )

    def all(self):
        """Return all requirements but torch, of which any recent one will do."""
        return [*self.build, *self.plain, *self.hosts, *self.compiled]


def is_met(requirement, packages):
    """Tell whether installed ``packages`` (name → version) meet a requirement.

    Ranges count as met by any version: pip keeps what is installed to them.
    """
    name, pin = requirement_name(requirement), requirement_pin(requirement)
    if name in OPENCV_BUILDS:
        return bool(OPENCV_BUILDS & set(packages))
    if name not in packages:
        return False
    return pin is None or packages[name].split('+')[0] == pin


# ------------------------------------------------------------------ the environment


class Environment:
    """An interpreter and what is installed beside it."""

    def __init__(self, python, facts):
        self.python = str(python)
        self.version = tuple(facts['version'])
        self.prefix = Path(facts['prefix'])
        self.in_venv = facts['in_venv']
        self.has_venv = facts['venv']
        self.site_packages = [Path(p) for p in facts['site_packages']]
        self.stdlib = Path(facts['stdlib'])
        self.include = Path(facts['include'])
        self.packages = {normalise(k): v for k, v in facts['packages'].items()}

    @classmethod
    def probe(cls, python):
        """Return the environment of an interpreter, None where it does not run."""
        try:
            done = subprocess.run(
                [str(python), '-c', PROBE],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=120,
            )
            return cls(python, json.loads(done.stdout.decode()))
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None

    def again(self):
        environment = self.probe(self.python)
        if environment is None:
            raise SetupError(
                f'{self.python} stopped working during the set-up: remove its '
                'environment and start the same command again.'
            )
        return environment

    @property
    def stamp_file(self):
        return self.prefix / '.stmixer_mm_setup.json'

    @property
    def busy_file(self):
        return self.prefix / '.stmixer_mm_setup.busy'

    def key(self, wanted):
        """Return what has to be unchanged for a stamp to hold."""
        facts = (wanted.digest, self.version, self.packages.get('torch'), str(ROOT))
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def is_done(self, wanted, extras):
        stamped = self.stamped_extras(wanted)
        return (
            stamped is not None
            and set(extras) <= set(stamped)
            and not self.busy_file.exists()
            and 'stmixer-mm' in self.packages
            and all(is_met(r, self.packages) for r in wanted.all())
        )

    def stamped_extras(self, wanted):
        """Return the extras that a fitting stamp names, None without such a stamp."""
        try:
            stamp = json.loads(self.stamp_file.read_text())
        except (OSError, ValueError):
            return None
        return stamp['extras'] if stamp['key'] == self.key(wanted) else None

    def stamp(self, wanted, extras):
        extras = sorted({*extras, *(self.stamped_extras(wanted) or ())})
        text = json.dumps({'key': self.key(wanted), 'extras': extras})
        half = self.stamp_file.with_suffix('.part')
        half.write_text(text + '\n')
        os.replace(str(half), str(self.stamp_file))
        self.busy_file.unlink()


def find_base_python(
    wanted, candidates=('python3', 'python3.12', 'python3.11', 'python3.10')
):
    """Return the interpreter to make ``.venv`` from: the first that has all it needs.

    Raises:
        SetupError: none fits; says what the best of them lacks.
    """
    seen, shortcoming = [], None
    for name in candidates:
        path = shutil.which(name)
        environment = path and Environment.probe(path)
        if not environment:
            continue
        number = '.'.join(map(str, environment.version))
        seen.append(f'{path} is {number}')
        if not wanted.fits_python(environment.version):
            continue
        minor = '{}.{}'.format(*environment.version)
        if not environment.has_venv:
            shortcoming = shortcoming or (
                f'{path} (Python {number}) has no venv module: install it (Debian and '
                f'Ubuntu: apt install python{minor}-venv) and start the same command '
                'again.'
            )
        elif not (environment.include / 'Python.h').is_file():
            shortcoming = shortcoming or missing_header(environment)
        else:
            return path
    raise SetupError(
        shortcoming
        or f'{wanted.pythons} is needed but {"; ".join(seen) or "none was found"}: '
        'install one, or name it with PYTHON=/path/to/python.'
    )


def missing_header(environment):
    minor = '{}.{}'.format(*environment.version)
    return (
        f'{environment.python} has no header {environment.include}/Python.h, which '
        'compiling mmcv needs: install it (Debian and Ubuntu: apt install '
        f'python{minor}-dev, Fedora: dnf install python3-devel) and start the same '
        'command again.'
    )


def make_venv(wanted, state):
    """Return the environment ``.venv``, made where it is missing or half made."""
    folder, making = ROOT / '.venv', state / 'making-venv'
    environment = None if making.exists() else Environment.probe(folder / 'bin/python')
    if environment is None:
        base = find_base_python(wanted)
        check_disk(ROOT, DISK_WITH_TORCH, 'the environment')
        say(f'making .venv with {base}')
        making.touch()
        done = subprocess.run([base, '-m', 'venv', '--clear', str(folder)])
        environment = Environment.probe(folder / 'bin/python')
        if done.returncode or environment is None:
            raise SetupError(
                f'"{base} -m venv {folder}" failed (see above): mend that, or name '
                'another Python with PYTHON=/path/to/python.'
            )
        making.unlink()
    if not wanted.fits_python(environment.version):
        number = '.'.join(map(str, environment.version))
        raise SetupError(
            f'{folder} holds Python {number} but {wanted.pythons} is needed: remove '
            'the folder and start the same command again.'
        )
    return environment


def given_environment(wanted, python):
    """Return the environment that PYTHON=… names, checked."""
    path = shutil.which(python)
    environment = path and Environment.probe(os.path.abspath(path))
    if not environment:
        raise SetupError(
            f'PYTHON={python} is no Python that runs: give the path of an interpreter, '
            'such as /path/to/environment/bin/python.'
        )
    if not wanted.fits_python(environment.version):
        number = '.'.join(map(str, environment.version))
        raise SetupError(
            f'PYTHON={python} is Python {number} but {wanted.pythons} is needed: name '
            'another one.'
        )
    managed = (environment.stdlib / 'EXTERNALLY-MANAGED').exists()
    if managed and not environment.in_venv:
        raise SetupError(BELONGS_TO_SYSTEM.format(python=python))
    return environment


def heal(environment):
    """Make pip install anew what an interrupted pip left half installed.

    pip takes a distribution for installed once its METADATA is there. Those written
    since the interrupted set-up began are compared with their own list of files.
    """
    since = environment.busy_file.stat().st_mtime - 1
    for folder in environment.site_packages:
        for info in folder.glob('*.dist-info'):
            if info.stat().st_mtime >= since and not is_whole(info):
                say(f'{info.name} was left half installed: installing it again')
                shutil.rmtree(str(info))


def is_whole(info):
    """Tell whether all files that a ``*.dist-info`` lists are there in full size."""
    try:
        with open(str(info / 'RECORD'), newline='', encoding='utf-8') as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError):
        return False
    if not rows:
        return False
    for path, _, size in rows:
        file = info.parent / path
        if path.endswith('.pyc'):
            continue
        if not file.exists():
            return False
        # Some wheels state wrong sizes of their own metadata.
        described = size and not path.startswith(f'{info.name}/')
        if described and file.stat().st_size != int(size):
            return False
    return True


# ------------------------------------------------------------------------- checks


def check_disk(folder, needed, what):
    """Raise SetupError where ``folder`` has less than ``needed`` bytes free."""
    free = shutil.disk_usage(str(folder)).free
    if free < needed:
        raise SetupError(
            f'{folder} has {free / GB:.1f} GB free but {what} needs '
            f'{needed / GB:.1f} GB: free some space and start the same command again.'
        )


def check_compiler(environment):
    """Raise SetupError where no C++ extension of this Python can be compiled."""
    compiler = shlex.split(os.environ.get('CXX', 'c++'))
    if not shutil.which(compiler[0]):
        raise SetupError(
            f'There is no C++ compiler ({compiler[0]}), which compiling mmcv needs: '
            'install one (Debian and Ubuntu: apt install g++, Fedora: dnf install '
            'gcc-c++) and start the same command again.'
        )
    if not (environment.include / 'Python.h').is_file():
        raise SetupError(missing_header(environment))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, 'probe.cpp')
        source.write_text(
            '#include <Python.h>\n#include <optional>\n#include <string>\n'
            'std::optional<std::string> f() { return std::string("x"); }\n'
        )
        done = subprocess.run(
            [
                *compiler,
                *('-std=c++17', '-fPIC', '-shared', f'-I{environment.include}'),
                *(str(source), '-o', str(source.with_suffix('.so'))),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        reason = done.stdout.decode(errors='replace').strip().splitlines()
        raise SetupError(
            f'The C++ compiler {compiler[0]} fails on a small C++17 extension '
            f'({reason[-1] if reason else "without a word"}): install a complete one, '
            'or name another with CXX=….'
        )


def compile_jobs(cores, free_memory):
    """Return how many files to compile at once: a job peaks near 1 GB."""
    return max(1, min(cores, int(free_memory / GB)))


def free_memory():
    """Return the bytes that programs can still have, in a container its share."""
    text = Path('/proc/meminfo').read_text()
    free = int(re.search(r'MemAvailable:\s+(\d+)', text)[1]) * 1024
    group = Path('/sys/fs/cgroup')
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit
        limit = int((group / 'memory.max').read_text())
        free = min(free, limit - int((group / 'memory.current').read_text()))
    return free


# ----------------------------------------------------------------------- plumbing


def say(text):
    print(f'[set-up] {text}', flush=True)


class Progress:
    """Lines that tell how far it is: few in a log, one that changes on a terminal."""

    def __init__(self):
        self.start = self.last = time.monotonic()
        self.on_terminal = sys.stdout.isatty()

    def show(self, text):
        moment = time.monotonic()
        if moment - self.last < (0.2 if self.on_terminal else 15):
            return
        self.last = moment
        seconds = int(moment - self.start)
        text = f'  {seconds // 60}:{seconds % 60:02d} {text}'
        if self.on_terminal:
            width = shutil.get_terminal_size().columns - 1
            print('\r\033[K' + text[:width], end='', flush=True)
        else:
            print(text, flush=True)

    def end(self):
        if self.on_terminal:
            print('\r\033[K', end='', flush=True)


def interesting(line):
    """Return what a line of pip's output tells of the progress, '' if nothing."""
    line = line.strip()
    files = re.match(r'\[(\d+)/(\d+)\] ', line)
    if files:
        return 'compiled {} of {} files'.format(*files.groups())
    bytes_ = re.match(r'Progress (\d+) of (\d+)$', line)
    if bytes_:
        done, total = (int(n) / 1e6 for n in bytes_.groups())
        return f'downloaded {done:.0f} of {total:.0f} MB'
    if re.match(r'(Collecting|Downloading|Building|Installing collected) ?', line):
        return line[:100]
    return ''


def explain(output, what, python, prefix):
    """Return the sentence for a step that failed with this output."""
    for pattern, remedy in REMEDIES:
        match = re.search(pattern, output)
        if match:
            return remedy.format(
                python=python,
                prefix=prefix,
                tmp=tempfile.gettempdir(),
                log=log_file(),
                **match.groupdict(),
            )
    errors = re.findall(r'(?m)^\s*((?:ERROR|error|fatal error)\b.*)$', output)
    reason = errors[-1].strip() if errors else 'without a word'
    return (
        f'{what} failed ({reason}): see {log_file()} and start the same command again.'
    )


def log_file():
    return ROOT / '.setup' / 'log.txt'


class Pip:
    """Runs pip in an environment, its torch (if any) left as it is."""

    def __init__(self, environment, lock):
        self.environment = environment
        self.lock = lock

    def constraints(self):
        torch = self.environment.packages.get('torch')
        if torch is None:
            return []
        # torch < 2.3 was built for numpy 1 and cannot share memory with numpy 2.
        old = version_tuple(torch) < (2, 3)
        return [f'torch==={torch}', *(['numpy<2'] if old else [])]

    def install(self, requirements, what, options=(), env=None):
        """Install requirements, or raise SetupError that says what to do."""
        say(what)
        command = [self.environment.python, '-m', 'pip', 'install']
        command += ['--no-input', '--disable-pip-version-check']
        if version_tuple(self.environment.packages['pip']) >= (24, 1):
            command += ['--progress-bar', 'raw']
        with tempfile.NamedTemporaryFile('w', suffix='.txt') as constraints:
            constraints.write('\n'.join(self.constraints()) + '\n')
            constraints.flush()
            command += ['--constraint', constraints.name, *options, *requirements]
            code, output = self.run(command, env)
        if code:
            here = self.environment
            raise SetupError(explain(output, what, here.python, here.prefix))
        self.environment = self.environment.again()

    def run(self, command, env=None):
        """Run a command, show its progress, and return (code, its last output)."""
        progress, tail = Progress(), collections.deque(maxlen=2000)
        with open(str(log_file()), 'a', encoding='utf-8') as log:
            log.write(f'$ {" ".join(map(shlex.quote, command))}\n')
            # The lock goes on to pip: should this process be killed alone, the next
            # set-up waits for the pip that it left behind.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                pass_fds=(self.lock.fileno(),),
                start_new_session=True,
            )
            try:
                for raw in process.stdout:
                    line = raw.decode(errors='replace')
                    note = interesting(line)
                    if note:
                        progress.show(note)
                    if not line.lstrip().startswith('Progress '):
                        log.write(line)
                        tail.append(line)
                code = process.wait()
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise
            finally:
                progress.end()
        return code, ''.join(tail)


def proof(environment, code):
    """Return '' where ``code`` runs in the environment, else its last line."""
    # Elsewhere, as the package would be found here without being installed.
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [environment.python, '-W', 'ignore', '-c', code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=elsewhere,
        )
    if not done.returncode:
        return ''
    output = done.stdout.decode(errors='replace').strip().splitlines()
    return output[-1] if output else f'exit status {done.returncode}'


# -------------------------------------------------------------------------- steps


def can_compile_cuda(environment):
    """Tell whether torch sees a GPU and nvcc is of the CUDA that torch was built for."""
    asked = subprocess.run(
        [environment.python, '-W', 'ignore', '-c', ASK_TORCH_FOR_CUDA],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    cuda = asked.stdout.decode().strip()
    nvcc = shutil.which('nvcc')
    if not cuda or not nvcc:
        return False
    told = subprocess.run([nvcc, '--version'], stdout=subprocess.PIPE)
    release = re.search(r'release (\d+)', told.stdout.decode())
    return bool(release) and release[1] == cuda.split('.')[0]


def install_mmcv(pip, wanted):
    """Install mmcv compiled against the torch at hand, proved by an import.

    pip keeps a wheel that it has built under a key that knows nothing of torch, so
    one that does not import is compiled anew without that cache.
    """
    (requirement,) = wanted.compiled
    if 'mmcv-lite' in pip.environment.packages:
        raise SetupError(
            'mmcv-lite is installed, which shares its folder with mmcv but has no '
            f'mmcv.ops: run "{pip.environment.python} -m pip uninstall mmcv-lite mmcv" '
            'and start the same command again.'
        )
    cuda = can_compile_cuda(pip.environment)
    for with_cuda in (True, False) if cuda else (False,):
        prove = PROVE_MMCV_CUDA if with_cuda else PROVE_MMCV
        installed = is_met(requirement, pip.environment.packages)
        if installed and not proof(pip.environment, prove):
            return
        check_disk(pip.environment.prefix, DISK_TO_COMPILE, 'mmcv')
        check_disk(tempfile.gettempdir(), DISK_TO_COMPILE, 'compiling mmcv')
        check_compiler(pip.environment)
        try:
            compile_mmcv(pip, requirement, prove, with_cuda, cached=not installed)
            return
        except SetupError as error:
            if not with_cuda:
                raise
            say(f'mmcv does not compile with CUDA, so its ops run on the CPU: {error}')


def compile_mmcv(pip, requirement, prove, with_cuda, cached):
    jobs = compile_jobs(len(os.sched_getaffinity(0)), free_memory())
    env = {'CFLAGS': COMPILE_FLAGS, 'MMCV_WITH_OPS': '1'}
    env['MAX_JOBS'] = os.environ.get('MAX_JOBS', str(jobs))
    if not with_cuda:
        env.update(CUDA_VISIBLE_DEVICES='', FORCE_CUDA='0')
    options = ['-v', '--no-build-isolation', '--no-deps']
    anew = [*options, '--no-cache-dir', '--force-reinstall']
    if cached:
        pip.install(
            [requirement],
            f'5/6 compiling {requirement} with {env["MAX_JOBS"]} jobs, unless pip has '
            'it in its cache (6 minutes on 2 cores, more with CUDA)',
            options,
            env,
        )
        if not proof(pip.environment, prove):
            return
    pip.install(
        [requirement],
        f'5/6 {requirement} does not import with this torch: compiling it anew with '
        f'{env["MAX_JOBS"]} jobs',
        anew,
        env,
    )
    reason = proof(pip.environment, prove)
    if reason:
        raise SetupError(
            f'{requirement} was compiled but does not import ({reason}): see '
            f"{log_file()} for the compiler's words, or name an environment with "
            'another torch with PYTHON=….'
        )


def install_all(environment, wanted, extras, lock, own):
    """Bring an environment to what is wanted, and stamp it."""
    if not os.access(str(environment.prefix), os.W_OK):
        raise SetupError(NOT_WRITABLE.format(prefix=environment.prefix))
    if environment.busy_file.exists():
        heal(environment)
        environment = environment.again()
    if 'pip' not in environment.packages:
        raise SetupError(
            f'{environment.python} has no pip: run "{environment.python} -m ensurepip" '
            'and start the same command again.'
        )
    torch = environment.packages.get('torch')
    if torch and version_tuple(torch) < version_tuple(wanted.oldest_torch):
        raise SetupError(
            f'{environment.python} has torch {torch} but {wanted.oldest_torch} or later '
            'is needed: upgrade it there, or leave PYTHON out to use .venv.'
        )
    if not torch:
        check_disk(environment.prefix, DISK_WITH_TORCH, 'the environment')
    if not is_met(wanted.compiled[0], environment.packages):
        # Here already, as the downloads before it take minutes.
        check_disk(environment.prefix, DISK_TO_COMPILE, 'mmcv')
        check_compiler(environment)

    environment.busy_file.touch()
    pip = Pip(environment, lock)
    if own and version_tuple(environment.packages['pip']) < (24, 1):
        pip.install(['pip'], '1/6 upgrading pip', ['--upgrade'])
    if not torch:
        pip.install(wanted.torch, f'2/6 installing {wanted.torch[0]}')
    pip.install(wanted.build, '3/6 installing what compiling needs')
    needed = [r for r in wanted.plain if not is_met(r, pip.environment.packages)]
    if needed:
        pip.install(needed, '4/6 installing what the packages need')
    if proof(pip.environment, PROVE_CV2):
        (headless,) = (r for r in wanted.plain if requirement_name(r) in OPENCV_BUILDS)
        pip.install(
            [headless],
            '4/6 cv2 does not import (no libGL?): installing its headless build',
            ['--no-deps', '--force-reinstall'],
        )
    pip.install(wanted.hosts, '4/6 installing the OpenMMLab packages', ['--no-deps'])
    install_mmcv(pip, wanted)
    pip.install(
        [str(ROOT)],
        '6/6 installing this package (editable)',
        ['--no-deps', '--no-build-isolation', '--editable'],
    )
    reason = proof(pip.environment, PROVE_PACKAGE)
    if reason:
        raise SetupError(
            f'"import stmixer_mm" fails in {pip.environment.prefix} ({reason}): remove '
            'what is at odds there, or use a new environment.'
        )
    pip.environment.stamp(wanted, extras)


@contextlib.contextmanager
def only_one(state):
    """Hold the lock of this folder; wait for another set-up, or the pip it left."""
    with open(str(state / 'lock'), 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say('waiting for another set-up in this folder to end')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def set_up(python, extras):
    """Return the interpreter of the environment, which then has all it needs."""
    wanted = Wanted(ROOT / 'setup.cfg', extras)
    state = ROOT / '.setup'
    known = shutil.which(python) if python else str(ROOT / '.venv/bin/python')
    if known and not (state / 'making-venv').exists():
        environment = Environment.probe(os.path.abspath(known))
        if environment and environment.is_done(wanted, extras):
            return environment.python
    state.mkdir(exist_ok=True)
    with only_one(state) as lock:
        log_file().write_text('')
        if python:
            environment = given_environment(wanted, python)
        else:
            environment = make_venv(wanted, state)
        if not environment.is_done(wanted, extras):
            install_all(environment, wanted, extras, lock, own=not python)
            say(f'done: {environment.prefix}')
    return environment.python


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--python', default='', help='use the environment of this interpreter'
    )
    parser.add_argument(
        '--extras', nargs='*', default=[], help='also install these extras'
    )
    args = parser.parse_args(argv)

    def stop(number, _):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        set_up(args.python, args.extras)
    except SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        sentence = explain(f'error: {error}', 'The set-up', sys.executable, ROOT)
        print(f'set-up: {sentence}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('set-up: interrupted; the same command goes on.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
