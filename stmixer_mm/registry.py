"""Registries of this package, each a child of mmengine's root.

A class registered here is found as ``stmixer_mm.X`` from every scope, and as plain
``X`` under ``default_scope = 'mmaction'`` and ``'mmdet'``.
"""

from mmaction import registry as mmaction
from mmdet import registry as mmdet
from mmengine import registry as root


class _SharedRegistry(root.Registry):
    """A registry of scope ``stmixer_mm`` that tells the hosts of what it registers."""

    def __init__(self, name: str, *, parent, hosts, location: str) -> None:
        super().__init__(name, parent=parent, scope='stmixer_mm', locations=[location])
        self._hosts = hosts

    def _register_module(self, module, module_name=None, force=False) -> None:
        super()._register_module(module, module_name, force)
        for host in self._hosts:
            host._register_module(module, module_name, force)


def _share(kind: str, location: str) -> _SharedRegistry:
    parent = getattr(root, kind)
    return _SharedRegistry(
        parent.name,
        parent=parent,
        hosts=[getattr(host, kind) for host in (mmaction, mmdet)],
        location=f'stmixer_mm.{location}',
    )


MODELS = _share('MODELS', 'models')
DATASETS = _share('DATASETS', 'datasets')
TRANSFORMS = _share('TRANSFORMS', 'datasets')
METRICS = _share('METRICS', 'evaluation')
HOOKS = _share('HOOKS', 'engine')
VISUALIZERS = _share('VISUALIZERS', 'visualization')
