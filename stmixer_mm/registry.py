"""Registries of this package, each a child of mmengine's root.

A class registered here is found as ``stmixer_mm.X`` from every scope, and as plain
``X`` under ``default_scope = 'mmaction'``.
"""

from mmaction import registry as host
from mmengine import registry as root


class _SharedRegistry(root.Registry):
    """A registry of scope ``stmixer_mm`` that tells mmaction of what it registers."""

    def __init__(self, name: str, *, parent, host_registry, location: str) -> None:
        super().__init__(name, parent=parent, scope='stmixer_mm', locations=[location])
        self._host_registry = host_registry

    def _register_module(self, module, module_name=None, force=False) -> None:
        super()._register_module(module, module_name, force)
        self._host_registry._register_module(module, module_name, force)


def _share(kind: str, location: str) -> _SharedRegistry:
    parent = getattr(root, kind)
    return _SharedRegistry(
        parent.name,
        parent=parent,
        host_registry=getattr(host, kind),
        location=f'stmixer_mm.{location}',
    )


MODELS = _share('MODELS', 'models')
DATASETS = _share('DATASETS', 'datasets')
TRANSFORMS = _share('TRANSFORMS', 'datasets')
METRICS = _share('METRICS', 'evaluation')
HOOKS = _share('HOOKS', 'engine')
VISUALIZERS = _share('VISUALIZERS', 'visualization')
