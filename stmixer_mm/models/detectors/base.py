"""What all detectors share: clips to feature maps."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

from mmaction.structures import ActionDataSample
from mmdet.models.detectors import BaseDetector
from mmengine.model import Sequential
from torch import Tensor, nn

from stmixer_mm.compat import exact_convolutions
from stmixer_mm.errors import UserError
from stmixer_mm.models.heads.stmixer_head import sample_name
from stmixer_mm.models.necks.levels import as_levels
from stmixer_mm.projects.forecast.warp_forecast import WarpForecast
from stmixer_mm.registry import MODELS


class ClipDetector(BaseDetector):
    """A backbone, a neck, and what a subclass reads of their feature maps.

    As in mmdet, ``forward(inputs, data_samples, mode)`` is :meth:`loss`,
    :meth:`predict` or, for ``mode='tensor'``, :meth:`_forward`.

    Args:
        backbone: Clips (B, 3, T_in, H, W) to one feature map or several.
        neck: These to ``feats``, L levels (B, C, T, H_l, W_l), finest first. A list of
            necks is run one after the other; None is for backbones that need none.
        data_preprocessor: Samples of the loader to clips.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`; a
            pretrained recogniser's checkpoint fills the backbone.
    """

    # Where a config sets num_classes.
    num_classes_key = 'model.head.num_classes'

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict | list | None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = None if neck is None else MODELS.build(neck)

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """A + 1, with the host's dummy class 0."""

    @abstractmethod
    def check_feats(self, feats: Sequence[Tensor], pad_shape: tuple[int, int]) -> None:
        """Compare feature maps with what reads them.

        Args:
            feats: What :meth:`extract_feat` returns; only their shapes matter.
            pad_shape: (h, w) of the padded clips.

        Raises:
            UserError: What reads the feats does not fit them.
        """

    @property
    def _parts(self) -> list[nn.Module]:
        """The backbone, and each neck."""
        if not self.with_neck:
            return [self.backbone]
        is_list = type(self.neck) is Sequential
        return [self.backbone, *(self.neck if is_list else [self.neck])]

    @property
    def _forecast(self) -> WarpForecast | None:
        return next((one for one in self._parts if isinstance(one, WarpForecast)), None)

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Clips (B, 3, T_in, H, W) to L levels (B, C, T, H_l, W_l).

        Frames that come after the clip, for a forecast to learn from, are not read.
        """
        if self._forecast is not None:
            inputs = inputs[:, :, : self._forecast.clip_len]
        with exact_convolutions(inputs.device.type):
            feats = self.backbone(inputs)
            if self.with_neck:
                feats = self.neck(feats)
        return as_levels(feats)

    def loss_and_extract_feat(
        self, inputs: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Losses of the necks that have any, and :meth:`extract_feat`'s result."""
        forecast = self._forecast
        if forecast is None or inputs.size(2) <= forecast.clip_len:
            return {}, self.extract_feat(inputs)
        place = self._parts.index(forecast)
        before, behind = self._parts[:place], self._parts[place + 1 :]
        with exact_convolutions(inputs.device.type):
            future, is_true = forecast.see_future(inputs, partial(run_parts, before))
            feats = run_parts(before, inputs[:, :, : forecast.clip_len])
            feats = forecast(feats)
            losses = forecast.loss(feats, future, is_true)
            return losses, as_levels(run_parts(behind, feats))

    def check_labels(self, data_samples: Sequence[ActionDataSample]) -> None:
        """Compare the columns of the labels with the number of classes."""
        for sample in data_samples:
            columns = sample.gt_instances.labels.shape[-1]
            if columns != self.num_classes:
                raise UserError(
                    f'The labels of {sample_name(sample)} have {columns} columns but '
                    f'the model has num_classes={self.num_classes}; set '
                    f'{self.num_classes_key}={columns}.'
                )


def run_parts(parts: Sequence[nn.Module], feats: object) -> object:
    """What the parts, one after the other, make of ``feats``."""
    for part in parts:
        feats = part(feats)
    return feats


def finds_tubelets(model: nn.Module) -> bool:
    """Whether a model says where persons are in all frames of a clip."""
    return getattr(getattr(model, 'head', None), 'box_dims', 2) == 3
