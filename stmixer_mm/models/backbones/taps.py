"""Feature maps from inside a backbone that returns only its last one."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.errors import UserError, nearest
from stmixer_mm.models.folding import unfold_time
from stmixer_mm.models.shapes import describe
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class TappedBackbone(BaseModule):
    """Collect the outputs of named submodules while a backbone runs.

    The inner backbone is the attribute ``backbone``, so that a recogniser's checkpoint
    fits the wrapper, with ``init_cfg=dict(type='Pretrained', …)``.

    Args:
        backbone: Config of the backbone, such as ``dict(type='mmaction.X3D', …)``.
        taps: Names of the submodules whose outputs are the levels, finest first. A list
            of modules stands for its last one.
        drop: Names of submodules behind the last tap. They are taken out, since they
            would cost time, and have parameters without a gradient, which distributed
            training refuses.
        time_in_batch: The levels are (B * T, C, h, w), as in hosts that fold time into
            the batch for 2-D layers; they are unfolded.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

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
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.taps = tuple(taps)
        self.time_in_batch = time_in_batch
        for name in (*taps, *drop):
            self.find(name)
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
        outputs = {}

        def keep(tap: str, module: nn.Module, args: tuple, output: object) -> None:
            outputs[tap] = output

        # Hooks that outlived the pass could not be copied and pickled.
        with ExitStack() as hooks:
            for tap in self.taps:
                hook = self.find(tap).register_forward_hook(partial(keep, tap))
                hooks.enter_context(hook)
            self.backbone(inputs)
        return tuple(self.as_level(outputs.get(tap), tap, inputs) for tap in self.taps)

    def as_level(self, output: object, tap: str, inputs: Tensor) -> Tensor:
        """The output of a tap, with its time unfolded."""
        num_dims = 4 if self.time_in_batch else inputs.dim()
        if not isinstance(output, Tensor) or output.dim() != num_dims:
            dims = '(B * T, C, h, w)' if self.time_in_batch else '(B, C, T, h, w)'
            raise UserError(
                f"The tap '{tap}' of {type(self.backbone).__name__} yields "
                f'{describe(output)}; tap a submodule that yields {dims}, or change '
                f'time_in_batch={self.time_in_batch}.'
            )
        return unfold_time(output, inputs.size(0)) if self.time_in_batch else output

    def find(self, name: str) -> nn.Module:
        """The submodule of that name; for a list of modules its last one."""
        modules = dict(self.backbone.named_modules())
        if not name or name not in modules:
            children = ', '.join(dict(self.backbone.named_children()))
            hint = nearest(name, modules) or f'; name one of {children}.'
            raise UserError(
                f"{type(self.backbone).__name__} has no submodule '{name}'{hint}"
            )
        module = modules[name]
        while isinstance(module, nn.ModuleList) and len(module):
            module = module[-1]
        return module

    def remove(self, name: str) -> None:
        """Replace a submodule by one that does nothing."""
        if any(f'{tap}.'.startswith(f'{name}.') for tap in self.taps):
            raise UserError(
                f"drop contains '{name}', which taps={list(self.taps)} needs; take one "
                'of them from its list.'
            )
        parent, _, child = name.rpartition('.')
        parent = self.backbone.get_submodule(parent)
        # Hosts loop over lists.
        is_list = isinstance(getattr(parent, child), nn.ModuleList)
        setattr(parent, child, nn.ModuleList() if is_list else nn.Identity())
