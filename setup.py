"""Everything is in setup.cfg but what has to be copied while a wheel is built."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Put configs and tools into the wheel as ``stmixer_mm/.mim``, as the hosts do."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, 'stmixer_mm', '.mim')
        shutil.rmtree(target, ignore_errors=True)
        for folder in ('configs', 'tools'):
            shutil.copytree(
                ROOT / folder,
                target / folder,
                ignore=shutil.ignore_patterns('__pycache__', 'setup_env.py'),
            )
        shutil.copy2(ROOT / 'model-index.yml', target)


setup(
    packages=[*find_packages(include=['stmixer_mm*']), 'stmixer_tools'],
    package_dir={'stmixer_tools': 'tools'},
    cmdclass={'build_py': BuildWithConfigs},
)
