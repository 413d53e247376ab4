"""Necks for images, run on each frame of video maps.

Shapes: B clips, C channels, T frames, L levels in, N levels out.
"""

from collections.abc import Sequence
from traceback import extract_tb

import torch
from mmengine.model import BaseModule
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.models.necks.maps import as_maps, check_frames, fold_time, unfold_time
from stmixer_mm.registry import MODELS

# Necks that take more than the maps, and what.
_NEEDS = dict(RFP='the images themselves')


@MODELS.register_module()
class FramewiseNeck(BaseModule):
    """Run a 2-D neck, such as mmdet's, with time folded into the batch.

    It may yield another number of maps, and other channels for each: a
    :class:`ChannelProjection3D` behind it in a list of necks brings them to one width.

    Args:
        neck: Config of the 2-D neck, such as ``dict(type='mmdet.FPN', …)``.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: The neck is known to need more than maps.
    """

    def __init__(self, *, neck: dict, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        kind = neck['type']
        kind = kind if isinstance(kind, str) else kind.__name__
        needs = _NEEDS.get(kind.rpartition('.')[-1])
        if needs is not None:
            raise UserError(
                f'{kind} needs {needs}, which a neck is not given; use one that is run '
                'on maps alone, such as mmdet.FPN.'
            )
        self.neck_name = kind
        self.neck = MODELS.build(neck)

    def forward(self, feats: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """(B, C_l, T, H_l, W_l) -> N maps (B, C_n, T, H_n, W_n), finest first

        Raises:
            ValueError: The maps differ in T, or the neck fails on them.
        """
        maps = as_maps(feats, neck='FramewiseNeck')
        check_frames(maps, neck='FramewiseNeck')
        batch_size = len(maps[0])
        outs = self.run_neck(tuple(fold_time(feat) for feat in maps))
        # Some, such as YOLOV3Neck, begin with the coarsest.
        outs = sorted(outs, key=lambda out: -out.size(-2) * out.size(-1))
        return [unfold_time(out, batch_size) for out in outs]

    def run_neck(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """Maps (B * T, C_l, H_l, W_l) to the neck's, as a list."""
        try:
            outs = self.neck(maps)
            outs = [outs] if isinstance(outs, Tensor) else list(outs)
            shapes = [tuple(out.shape) for out in outs]
            if any(len(shape) != 4 or shape[0] != len(maps[0]) for shape in shapes):
                raise UserError(f'it yields {shapes}, which are no maps of the frames')
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            sizes = [tuple(feat.shape[1:]) for feat in maps]
            raise UserError(
                f'{self.neck_name} fails on the {len(maps)} maps of each frame, '
                f'(channels, height, width) = {sizes}, with "{reason(error)}"; see '
                'whether its in_channels and levels fit these, or use another neck.'
            ) from error
        return outs


def reason(error: Exception) -> str:
    """The first line of an error's message, or the line of code that says nothing."""
    lines = str(error).splitlines()
    return lines[0] if lines else extract_tb(error.__traceback__)[-1].line
