"""Predictions of a model for clips."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from mmcv.ops import nms
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn

from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.datasets.clips import Clip
from stmixer_mm.datasets.videos import OnDamage
from stmixer_mm.errors import UserError
from stmixer_mm.registry import STREAMS, Reuse

# Called as :func:`predict`, for a project that shows clips to the model in its own way.
Predictor = Callable[..., Iterator[tuple[Clip, InstanceData]]]


def predict(
    model: nn.Module,
    loader: ClipLoader,
    clips: Iterable[Clip],
    *,
    batch_size: int,
    nms_thr: float | None,
    on_damage: OnDamage | None,
    reuse: Reuse,
) -> Iterator[tuple[Clip, InstanceData]]:
    """Predictions for clips in order of time, in batches.

    Args:
        model: From :func:`.init_detector`.
        loader: Of the model's config.
        clips: Taken as they are needed.
        batch_size: Clips of a batch.
        nms_thr, on_damage: See :func:`.detect_clips`.
        reuse: See :meth:`.ActionDetInferencer.stream`.
    """
    if reuse == 'always' and not STREAMS:
        raise UserError("import stmixer_mm.projects.streaming for reuse='always'.")
    stream = next((start(model, loader, reuse) for start in STREAMS), None)
    loaded = loader.load(clips, on_damage, stream)
    return _predict(model, loaded, batch_size, nms_thr, stream)


def _predict(
    model: nn.Module,
    loaded: Iterable[tuple[Clip, object]],
    batch_size: int,
    nms_thr: float | None,
    stream: object,
) -> Iterator[tuple[Clip, InstanceData]]:
    errors: list[UserError] = []
    loaded = _until_error(loaded, errors)
    while batch := list(islice(loaded, batch_size)):
        clips, inputs = zip(*batch, strict=True)
        with torch.inference_mode():
            if stream is not None:
                samples = stream.test_step(inputs)
            else:
                samples = model.test_step(pseudo_collate(inputs))
        for clip, sample in zip(clips, samples, strict=True):
            yield clip, _without_duplicates(sample.pred_instances, nms_thr)
    if errors:
        raise errors[0]


def _until_error(loaded: Iterable, errors: list[UserError]) -> Iterator:
    """Keep what came before a source breaks off, even within a batch."""
    try:
        yield from loaded
    except UserError as error:
        errors.append(error)


def _without_duplicates(instances: InstanceData, nms_thr: float | None) -> InstanceData:
    scores = instances.get('tubelet_scores', instances.get('person_scores'))
    if nms_thr is None or scores is None or not len(instances):
        return instances
    # On the host, where every mmcv has the operator.
    bboxes = torch.as_tensor(instances.bboxes).cpu()
    scores = torch.as_tensor(scores).cpu()
    if bboxes.dim() == 3:
        bboxes = bboxes[:, bboxes.shape[1] // 2]
    _, indices = nms(bboxes.float(), scores.float(), iou_threshold=nms_thr)
    return instances[indices.sort().values]
