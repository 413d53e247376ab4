"""Training of a memory on banks, without videos.

Shapes: B keyframes, n persons of one, N with padding, m remembered ones, M with padding,
k annotated ones, C channels of a query.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from stmixer_mm.errors import UserError
from stmixer_mm.models.data_preprocessor import ClipDataPreprocessor
from stmixer_mm.models.detectors.stmixer import STMixer
from stmixer_mm.models.parts import Samples
from stmixer_mm.projects.memory.bank import (
    SAME_S,
    Bank,
    check_window,
    detector_key,
    find_bank,
)
from stmixer_mm.registry import DATASETS, MODELS
from stmixer_mm.structures import Queries, StageOutput

MIN_IOU = 0.5  # of a found person that has the labels of an annotated one


@DATASETS.register_module()
class BankDataset(Dataset):
    """The annotated keyframes of a dataset, with the persons of banks.

    Their ``data_samples`` have ``remembered``: of the m persons in the window
    ``vectors`` (m, 2 C), ``bboxes`` (m, 4) in [0, 1], and ``passed_s`` (m,), seconds
    from the keyframe to theirs. In place of a clip there are ``persons``, the n of the
    keyframe itself: vectors, boxes, and ``owners`` (n,), the number of the annotated
    person from 1, or 0.

    Args:
        dataset: Config of a :class:`.KeyframeDataset`.
        banks: Folder of banks, which ``stmixer extract`` writes.
        window_s: Seconds before a keyframe, and after it, that a sample has.

    Raises:
        UserError: A bank is missing, or is no bank, or has other classes; or no bank
            has an annotated keyframe.
    """

    def __init__(self, dataset: dict, *, banks: str, window_s: float = 30.0) -> None:
        self.window_s = check_window(window_s)
        self.dataset = DATASETS.build(dataset)
        self.dataset.full_init()
        infos = [self.dataset.get_data_info(i) for i in range(len(self.dataset))]
        if 'timestamp_start' not in infos[0]:
            raise UserError(
                f'BankDataset goes with keyframes at seconds, but a '
                f'{type(self.dataset).__name__} counts frames; take a KeyframeDataset.'
            )
        names = dict.fromkeys(info['video_id'] for info in infos)
        self.banks = {name: find_bank(banks, name) for name in names}
        for bank in self.banks.values():
            check_classes(bank, self.metainfo['classes'])
        self.places = [
            self.banks[info['video_id']].keyframe(seconds(info)) for info in infos
        ]
        if all(place is None for place in self.places):
            raise UserError(
                f'The banks in {banks} have no keyframe at an annotated time, such as '
                f'{seconds(infos[0]):g} s of {infos[0]["video_id"]}; write them anew '
                'with a fitting --interval-s.'
            )

    @property
    def metainfo(self) -> dict:
        return self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict:
        sample = self.get_persons(index)
        bank = self.banks[sample.video_id]
        now_s = sample.timestamp - self.dataset.get_data_info(index)['timestamp_start']
        reach = self.window_s + SAME_S
        window = np.searchsorted(bank.times, (now_s - reach, now_s + reach)).tolist()
        vectors, bboxes, times = bank.persons(*window)
        of_bank = dict(bank=bank.path, key=bank.about['key'], reach_s=reach)
        sample.set_metainfo(of_bank)
        sample.remembered = InstanceData(
            vectors=vectors, bboxes=bboxes, passed_s=(times - now_s).float()
        )
        return dict(data_samples=sample)

    def get_persons(self, index: int) -> ActionDataSample:
        """A keyframe with the persons of its bank and those annotated."""
        info, place = self.dataset.get_data_info(index), self.places[index]
        at_once = (place, place + 1) if place is not None else (0, 0)
        vectors, bboxes, _ = self.banks[info['video_id']].persons(*at_once)
        meta = {name: info[name] for name in ('video_id', 'timestamp', 'img_key')}
        sample = ActionDataSample(metainfo=dict(meta, img_shape=(1, 1)))
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(info['gt_bboxes']),
            labels=torch.from_numpy(info['gt_labels']),
        )
        sample.persons = InstanceData(
            vectors=vectors,
            bboxes=bboxes,
            owners=find_owners(bboxes, sample.gt_instances.bboxes),
        )
        return sample


def seconds(info: dict) -> float:
    """The time of a keyframe from the first frame of its video."""
    return info['timestamp'] - info['timestamp_start']


def check_classes(bank: Bank, classes: Sequence[str]) -> None:
    """Raise ``UserError`` for a bank of a model of other classes.

    Names that were made up where a label map had none do not count.
    """
    bank_classes = bank.about['classes'] or classes
    pairs = zip(bank_classes, classes, range(1, 1 + len(classes)), strict=False)
    differ = [
        (bank_class, class_name)
        for bank_class, class_name, number in pairs
        if bank_class != class_name
        and f'action {number}' not in (bank_class, class_name)
    ]
    if len(bank_classes) != len(classes) or differ:
        raise UserError(
            f'{bank.path} is of a model with the {len(bank_classes)} classes '
            f'{", ".join(bank_classes[:3])}, …, but the data have the {len(classes)} '
            f'{", ".join(classes[:3])}, …; take the banks of a model of these classes.'
        )


def find_owners(bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
    """The annotated box that each of n boxes overlaps most, from 1; 0 for none."""
    if not len(gt_bboxes):
        return torch.zeros(len(bboxes), dtype=torch.long)
    ious, best = bbox_overlaps(bboxes, gt_bboxes).max(dim=1)
    return (best + 1).where(ious >= MIN_IOU, 0)


@MODELS.register_module()
class BankPreprocessor(ClipDataPreprocessor):
    """Clips as in its base class, and samples of banks, which have none."""

    def forward(self, data: dict, training: bool = False) -> dict:
        if 'inputs' in data:
            return super().forward(data, training)
        return dict(inputs=None, **self.cast_data(data))


@MODELS.register_module()
class BankActions(STMixer):
    """A detector whose memory learns from banks of its own vectors.

    It predicts from clips as an :class:`.STMixer`, and from samples of a
    :class:`BankDataset`. The memory alone learns; the loss is that of the head's actions.

    Args:
        memory: A :class:`.LongTermActions`; None predicts from clips without one.
        **kwargs: See :class:`.STMixer`.
    """

    def __init__(self, *, memory: dict | None, **kwargs) -> None:
        super().__init__(memory=memory, **kwargs)
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name.startswith('memory.')

    @cached_property
    def key(self) -> str:
        """Digest of the detector's weights, which do not change."""
        return detector_key(self)

    def recall(self, persons: Tensor, bboxes: Tensor, data_samples: Samples) -> Tensor:
        """Addends (B, N, A) to the logits of persons (B, N, 2 C), boxes in [0, 1]."""
        fields = 'vectors', 'bboxes', 'passed_s'
        *remembered, passed_s = padded(data_samples, 'remembered', *fields)
        embed = self.memory.embed
        return self.memory(embed(persons, bboxes), embed(*remembered), passed_s)

    def read_banks(self, data_samples: Samples) -> StageOutput:
        """Predictions (B, N, ·) of the persons of banks; boxes are in [0, 1]."""
        self.check(data_samples)
        vectors, bboxes = padded(data_samples, 'persons', 'vectors', 'bboxes')
        queries = Queries(*vectors.float().chunk(2, dim=-1))
        last = self.decoder.stages[-1].read_out(queries, torch.zeros_like(bboxes))
        added = self.recall(vectors, bboxes, data_samples)
        return last._replace(action_logits=last.action_logits + added, bboxes=bboxes)

    def check(self, data_samples: Samples) -> None:
        """Raise ``UserError`` for a bank of another detector, or too little of one."""
        for sample in data_samples:
            if sample.key != self.key:
                raise UserError(
                    f'{sample.bank} is the bank of another checkpoint; write it anew '
                    'with this one, or load that one (load_from).'
                )
            if sample.remembered.vectors.size(1) != 2 * self.decoder.embed_dims:
                raise UserError(
                    f'{sample.bank} has vectors of another width than this detector; '
                    'write it anew with stmixer extract.'
                )
            if sample.reach_s < self.memory.window_s:
                raise UserError(
                    f'model.memory.window_s={self.memory.window_s:g} is more than that '
                    f'of BankDataset, {sample.reach_s - SAME_S:g}; raise the latter.'
                )

    def loss(self, inputs: Tensor | None, data_samples: Samples) -> dict[str, Tensor]:
        if inputs is not None:
            raise UserError(
                'BankActions learns from banks, not from clips; train on a BankDataset.'
            )
        (owners,) = padded(data_samples, 'persons', 'owners', value=-1)
        stages = [self.read_banks(data_samples)]
        terms, _ = self.head.loss(stages, data_samples, {'': owners.cpu()})
        return dict(loss_action=terms['loss_action'])

    def predict(self, inputs: Tensor | None, data_samples: Samples) -> Samples:
        """The samples with ``pred_instances``; of banks these are all of its persons."""
        if inputs is not None:
            return super().predict(inputs, data_samples)
        stage = self.read_banks(data_samples)
        person_scores, scores, _ = self.head.score(stage, stage.bboxes.new_ones(4))
        for number, sample in enumerate(data_samples):
            persons = sample.pop('persons')
            del sample.remembered
            sample.pred_instances = InstanceData(
                bboxes=persons.bboxes,
                scores=F.pad(scores[number, : len(persons)], (1, 0)),
                person_scores=person_scores[number, : len(persons)],
            )
        return data_samples


def padded(
    data_samples: Samples, of: str, *names: str, value: float = torch.nan
) -> list[Tensor]:
    """Fields (n, ·) of B samples as (B, N, ·); NaN only where it does no harm."""
    columns = [[sample.get(of)[name] for sample in data_samples] for name in names]
    return [
        pad_sequence(
            tensors,
            batch_first=True,
            padding_value=value if tensors[0].dim() == 1 else 0,
        )
        for tensors in columns
    ]
