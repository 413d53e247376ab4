"""Registries of this package, each a child of mmengine's root.

A class registered here is found as ``stmixer_mm.X`` from every scope, and as plain
``X`` under ``default_scope = 'mmaction'`` and ``'mmdet'``.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal

from mmaction import registry as mmaction
from mmdet import registry as mmdet
from mmengine import registry as root

from stmixer_mm.errors import UserError, blame, choose

TIMM = 'timm/'  # begins the type of a backbone of timm, see TimmBackbone


# Modules of projects with parts that were in the core: checkpoints and configs name these
# without importing the project.
_MOVED = {
    name: f'stmixer_mm.projects.{project}'
    for project, names in {
        'backbones': ('TappedBackbone', 'TimmBackbone'),
        'tubelets': (
            *('STMixerTubeletDecoder', 'STMixerTubeletHead', 'TubeletCost'),
            *('LocateTubelets', 'PackTubelets', 'TrackClipDataset', 'TubeClipDataset'),
        ),
    }.items()
    for name in names
}


def import_moved(name: str) -> None:
    """Import the project of a part that was in the core."""
    if module := _MOVED.get(name.rpartition('.')[2]):
        import_module(module)


class _SharedRegistry(root.Registry):
    """A registry of scope ``stmixer_mm`` that registers with the hosts too."""

    def __init__(self, name: str, *, parent, hosts, location: str) -> None:
        super().__init__(name, parent=parent, scope='stmixer_mm', locations=[location])
        self._hosts = hosts

    def _register_module(self, module, module_name=None, force=False) -> None:
        super()._register_module(module, module_name, force)
        for host in self._hosts:
            host._register_module(module, module_name, force)

    def get(self, key: str) -> type | None:
        import_moved(key)
        return super().get(key)

    def build(self, cfg: dict | list, *args, **kwargs) -> object:
        """Build a part; a host's in its own scope, see :func:`_in_own_scope`."""
        try:
            return super().build(_in_own_scope(cfg), *args, **kwargs)
        except Exception as error:
            # For the sentence of ``blame``: the innermost part that does not build.
            if not hasattr(error, 'part') and isinstance(cfg, dict):
                error.part = cfg.get('type')
            raise


def is_timm(kind: object) -> bool:
    """True for the name of a backbone of timm."""
    return isinstance(kind, str) and kind.startswith(TIMM)


def _in_own_scope(cfg: dict | list) -> dict | list:
    """Config of a host's part with the scope in which that part builds its own parts.

    The prefix of ``dict(type='mmdet.X', …)`` finds X alone. What X builds in turn, by
    default or from its settings, is looked up under the default scope, which may be
    another.
    """
    if isinstance(cfg, list):
        return [*map(_in_own_scope, cfg)]
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    if is_timm(kind):
        cfg = {**cfg, 'type': 'TimmBackbone', 'name': kind.removeprefix(TIMM)}
        kind = cfg['type']
    name = kind.__module__ if isinstance(kind, type) else str(kind)
    import_moved(name)  # a host's registry looks for it, under the host's scope
    scope, dot, _ = name.partition('.')
    # The hosts' classes are not found from the scope of this package.
    if not dot or scope not in root.MODELS.children or scope == 'stmixer_mm':
        return cfg
    return {'_scope_': scope, **cfg}


def _share(kind: str, location: str) -> _SharedRegistry:
    parent = getattr(root, kind)
    return _SharedRegistry(
        parent.name,
        parent=parent,
        hosts=[getattr(host, kind) for host in (mmaction, mmdet)],
        location=f'stmixer_mm.{location}',
    )


MODELS = _share('MODELS', 'models')
TASK_UTILS = _share('TASK_UTILS', 'models')
DATASETS = _share('DATASETS', 'datasets')
TRANSFORMS = _share('TRANSFORMS', 'datasets')
METRICS = _share('METRICS', 'evaluation')
HOOKS = _share('HOOKS', 'engine')
LOG_PROCESSORS = _share('LOG_PROCESSORS', 'engine')
VISUALIZERS = _share('VISUALIZERS', 'visualization')

# Files that take the place of a checkpoint: the module for a suffix, imported when such a
# file is named. Its ``put_in_place`` (config, path) makes the file the model of the
# config; what is built of it has ``classes``, the names of the actions or None.
MODEL_FILES = dict.fromkeys(('.onnx', '.xml'), 'stmixer_mm.projects.export')


def model_file_loader(path: str | Path | None) -> Callable[..., None] | None:
    """``put_in_place`` of the module for a file; None for a checkpoint."""
    module = MODEL_FILES.get(Path(path or '').suffix.lower())
    return module and import_module(module).put_in_place


# Readers of predictions, by the stage outputs that a head takes: see apis/read.py.
READERS: dict[type, object] = {}

# Called with a model, its ClipLoader and ``reuse``: what loads and predicts the clips of
# one stream together (choose, take, test_step), or None for each by itself.
STREAMS: list[Callable[..., object | None]] = []
Reuse = Literal['auto', 'always', 'never']

# Functions (VideoDetections, path) that write a format, by its name.
RESULT_FORMATS: dict[str, Callable[..., None]] = {}
RESULT_SUFFIXES: dict[str, str] = {}  # names of formats by suffix
_NEEDED: dict[str, str] = {}  # modules that formats need, by their names


def result_writer(path: str | Path, form: str | None = None) -> Callable[..., None]:
    """The function for a file, see :meth:`.VideoDetections.save`."""
    form = form or RESULT_SUFFIXES.get(Path(path).suffix.lower())
    if form is None:
        raise UserError(f'{path} must end in {" or ".join(RESULT_SUFFIXES)}.')
    write = choose('form', form, RESULT_FORMATS)
    if form in _NEEDED:
        with blame(f'{path} cannot be written', f'pip install {_NEEDED[form]}'):
            import_module(_NEEDED[form])
    return write


def result_format(
    name: str, suffix: str | None = None, *, needs: str | None = None
) -> Callable:
    """Decorator of a function (detections, path) that writes a format.

    A format without a suffix is chosen by its name alone; ``needs`` is a module that is
    not always installed.
    """

    def register(write: Callable[..., None]) -> Callable:
        RESULT_FORMATS[name] = write
        if needs:
            _NEEDED[name] = needs
        if suffix:
            RESULT_SUFFIXES[suffix] = name
        return write

    return register
