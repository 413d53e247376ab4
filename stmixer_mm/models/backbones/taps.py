"""Feature maps from inside a backbone that returns its last one only."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from stmixer_mm.errors import UserError, nearest
from stmixer_mm.models.backbones.hosted import HostedBackbone
from stmixer_mm.models.folding import unfold_time
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class TappedBackbone(HostedBackbone):
    """Collect the outputs of named submodules while a backbone runs.

    Args:
        backbone: Config of the backbone, such as ``dict(type='mmaction.X3D', …)``.
        taps: Names of the submodules whose outputs are the levels, finest first. A list
            of modules stands for its last one.
        drop: Names of submodules behind the last tap. They are taken out, since they
            would cost time, and have parameters without a gradient, which distributed
            training refuses.
        time_in_batch: The levels are (B * T, C, h, w), as in hosts that fold time into
            the batch for 2-D layers; they are unfolded.
        init_cfg: Initialisation, see :class:`.HostedBackbone`.

    Raises:
        UserError: The backbone has no such submodule, or it does not yield a level.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        taps: Sequence[str],
        drop: Sequence[str] = (),
        time_in_batch: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(backbone=backbone, init_cfg=init_cfg)
        for setting, names in (('taps', taps), ('drop', drop)):
            if isinstance(names, str):
                raise UserError(
                    f"{setting}='{names}' is not a list; write ['{names}']."
                )
        if not taps:
            raise UserError(
                'taps is empty; name the submodules that yield levels, of '
                f'{self.child_names()} in {self.inner_name}.'
            )
        self.taps = tuple(taps)
        self.time_in_batch = time_in_batch
        for tap in self.taps:
            self.find(tap)
            for name in drop:
                if f'{tap}.'.startswith(f'{name}.'):
                    raise UserError(
                        f"drop takes out '{name}' but taps needs '{tap}'; take one of "
                        'them from its list.'
                    )
        for name in drop:
            self.remove(name)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            inputs: Clips (B, 3, T_in, H, W); or images (N, 3, H, W), where it stands
                inside a :class:`.FramewiseBackbone`.

        Returns:
            One level for each tap, (B, C, T, h, w) or (N, C, h, w).
        """
        with record_outputs([self.find(tap) for tap in self.taps]) as outputs:
            self.backbone(inputs)
        return tuple(
            self.as_level(tap, output, inputs)
            for tap, output in zip(self.taps, outputs, strict=True)
        )

    def as_level(self, tap: str, output: object, inputs: Tensor) -> Tensor:
        """The output of a tap, with its time unfolded."""
        dim = 4 if self.time_in_batch else inputs.dim()
        if not isinstance(output, Tensor) or output.dim() != dim:
            found = 'does not run' if output is None else 'does not yield a feature map'
            if isinstance(output, Tensor):
                found = f'yields {tuple(output.shape)}'
            dims = '(B * T, C, h, w)' if self.time_in_batch else '(B, C, T, h, w)'
            raise UserError(
                f"The tap '{tap}' of {self.inner_name} {found}; tap a submodule that "
                f'yields {dims}, or change time_in_batch={self.time_in_batch}.'
            )
        return unfold_time(output, len(inputs)) if self.time_in_batch else output

    def find(self, name: str) -> nn.Module:
        """The submodule of that name; of a list of modules its last one."""
        module = self.lookup(name)
        while isinstance(module, nn.ModuleList) and len(module):
            module = module[-1]
        return module

    def lookup(self, name: str) -> nn.Module:
        modules = dict(self.backbone.named_modules())
        if not name or name not in modules:
            hint = nearest(name, modules) or f'; name one of {self.child_names()}.'
            raise UserError(f"{self.inner_name} has no submodule '{name}'{hint}")
        return modules[name]

    def remove(self, name: str) -> None:
        """Leave in the place of a submodule what does nothing."""
        # Hosts loop over lists.
        is_list = isinstance(self.lookup(name), nn.ModuleList)
        parent, _, child = name.rpartition('.')
        setattr(
            self.backbone.get_submodule(parent),
            child,
            nn.ModuleList() if is_list else nn.Identity(),
        )

    def child_names(self) -> str:
        return ', '.join(name for name, _ in self.backbone.named_children())


@contextmanager
def record_outputs(modules: Sequence[nn.Module]) -> Iterator[list]:
    """What each of the modules returns while the context lasts, None before it runs.

    The hooks do not outlive the context, so models can be copied and pickled.
    """
    outputs = [None] * len(modules)

    def keep(index, module, args, output) -> None:
        outputs[index] = output

    handles = [
        module.register_forward_hook(partial(keep, index))
        for index, module in enumerate(modules)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
