"""Choose the person score below which a detector says nothing, from scenes without anyone.

Such scenes are cut from the test clips, beside all persons (CropEmptyPart). The threshold
leaves the given share of them without a detection; printed are also the shares of the
annotated persons that are found at it, and at others.
"""

from stmixer_mm.apis.inference import init_detector
from stmixer_mm.command_line import Count, Overrides, Score, overrides, run_main
from stmixer_mm.registry import DATASETS

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import pseudo_collate
from torch import nn
from tqdm import tqdm

DECODES = ('DecodeFrames', 'DecodeFrameFiles')


def main(
    config: str,
    checkpoint: str,
    *,
    share: Score = 0.95,
    stride: Count = 8,
    bystanders_file: str | None = None,
    settings: Overrides,
) -> None:
    """Args:
    config: Config whose test set has tubes.
    checkpoint: Checkpoint file.
    share: Of the empty scenes that stay empty.
    stride: Look into every n-th annotated frame.
    bystanders_file: See TubeDataset; scenes are cut beside these persons, too.
    """
    head = {'model.head.score_thr': 0.0}
    model = init_detector(config, checkpoint, cfg_options=overrides(**settings) | head)
    options = dict(model.cfg.test_dataloader.dataset)
    options |= dict(all_frames=False, frame_stride=stride)
    actor_scores = np.array([best_of_actors(model, sample) for sample in read(options)])
    pipeline = [*options['pipeline']]
    place = [step['type'] in DECODES for step in pipeline].index(True) + 1
    pipeline.insert(place, dict(type='CropEmptyPart', prob=1.0))
    options |= dict(pipeline=pipeline, bystanders_file=bystanders_file)
    empty_scores = np.array([best(model, sample) for sample in read(options)])
    threshold = np.quantile(empty_scores, share)
    print(f'{len(empty_scores)} empty scenes, {len(actor_scores)} with an actor')
    for value in sorted([threshold, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]):
        quiet, recall = (empty_scores < value).mean(), (actor_scores >= value).mean()
        print(f'person score {value:.3f}: {quiet:.3f} stay empty, recall {recall:.3f}')


def read(options: dict) -> tqdm:
    dataset = DATASETS.build(options)
    return tqdm((dataset[index] for index in range(len(dataset))), total=len(dataset))


@torch.inference_mode()
def predict(model: nn.Module, sample: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (Q, 4) in [0, 1] and person scores (Q,)."""
    (result,) = model.test_step(pseudo_collate([sample]))
    return result.pred_instances.bboxes, result.pred_instances.person_scores


def best(model: nn.Module, sample: dict) -> float:
    """The highest person score in a clip."""
    return float(predict(model, sample)[1].max())


def best_of_actors(model: nn.Module, sample: dict) -> float:
    """The highest person score of a box that overlaps an annotated one by half."""
    bboxes, scores = predict(model, sample)
    height, width = sample['data_samples'].img_shape
    actors = torch.as_tensor(sample['data_samples'].gt_instances.bboxes)
    actors = actors / torch.tensor([width, height, width, height])
    overlaps = bbox_overlaps(bboxes, actors).amax(dim=1)
    return float(scores.where(overlaps >= 0.5, 0).max())


if __name__ == '__main__':
    run_main(main)
