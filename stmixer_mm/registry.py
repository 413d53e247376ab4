"""Registries of this package, each a child of mmengine's root.

A class registered here is found as ``stmixer_mm.X`` from every scope, and as plain
``X`` under ``default_scope = 'mmaction'`` and ``'mmdet'``.
"""

from mmaction import registry as mmaction
from mmdet import registry as mmdet
from mmengine import registry as root


class _SharedRegistry(root.Registry):
    """A registry of scope ``stmixer_mm`` that registers with the hosts too."""

    def __init__(self, name: str, *, parent, hosts, location: str) -> None:
        super().__init__(name, parent=parent, scope='stmixer_mm', locations=[location])
        self._hosts = hosts

    def _register_module(self, module, module_name=None, force=False) -> None:
        super()._register_module(module, module_name, force)
        for host in self._hosts:
            host._register_module(module, module_name, force)

    def build(self, cfg: dict, *args, **kwargs) -> object:
        try:
            return super().build(cfg, *args, **kwargs)
        except Exception as error:
            # For the sentence of ``blame``: the innermost part that does not build.
            if not hasattr(error, 'part') and isinstance(cfg, dict):
                error.part = cfg.get('type')
            raise


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
VISUALIZERS = _share('VISUALIZERS', 'visualization')


def build_hosted(config: dict, registry: root.Registry = MODELS) -> object:
    """Build ``dict(type='mmaction.X', …)`` in X's own scope.

    The prefix finds X alone. What X builds in turn, such as a convolution that only
    its host knows, is looked up under the default scope, which may be another.
    """
    name = config['type']
    scope = name.partition('.')[0] if isinstance(name, str) and '.' in name else None
    # The hosts' classes are not found from the scope of this package.
    if scope in (None, 'stmixer_mm'):
        return registry.build(config)
    return registry.build({'_scope_': scope, **config})
