"""Feature maps from inside a backbone that returns only its last one."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from mmengine.model import BaseModule
from torch import Tensor, nn

from stmixer_mm.models.folding import unfold_time
from stmixer_mm.registry import MODELS


@MODELS.register_module()
class TappedBackbone(BaseModule):
    """Collect the outputs of named submodules while a backbone runs.

    Checkpoints of recognisers fit, with ``init_cfg=dict(type='Pretrained', …)``.

    Args:
        backbone: Config of the backbone, such as ``dict(type='mmaction.X3D', …)``.
        taps: Names of the submodules whose outputs are the levels, finest first. A list
            of modules stands for its last one.
        drop: Names of submodules behind the last tap, which are taken out: distributed
            training refuses parameters without a gradient.
        time_in_batch: The levels are (B * T, C, h, w), and are unfolded.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.
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
        for name in taps:
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
        levels = (outputs[tap] for tap in self.taps)
        if not self.time_in_batch:
            return tuple(levels)
        return tuple(unfold_time(level, inputs.size(0)) for level in levels)

    def find(self, name: str) -> nn.Module:
        """The submodule of that name; for a list of modules its last one."""
        module = self.backbone.get_submodule(name)
        while isinstance(module, nn.ModuleList) and len(module):
            module = module[-1]
        return module

    def remove(self, name: str) -> None:
        """Replace a submodule by one that does nothing."""
        parent, _, child = name.rpartition('.')
        parent = self.backbone.get_submodule(parent)
        # Hosts loop over lists.
        is_list = isinstance(getattr(parent, child), nn.ModuleList)
        setattr(parent, child, nn.ModuleList() if is_list else nn.Identity())
