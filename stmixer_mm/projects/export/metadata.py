"""Descriptions of exported models, in their files and beside them."""

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import stmixer_mm
from stmixer_mm.apis.inferencer import ActionDetInferencer
from stmixer_mm.apis.read import reader_of
from stmixer_mm.datasets.pipelines import dataset_configs, find, find_sampler
from stmixer_mm.datasets.transforms import SampleKeyframeClip
from stmixer_mm.projects.export.tensors import Outputs
from stmixer_mm.projects.export.traced import Traced

KEY = 'stmixer_mm'  # of the metadata in the files
FOREIGN = 'it was not written by tools/export.py'


@dataclass(kw_only=True)
class Metadata:
    """Description of an exported model for its clients."""

    version: str = stmixer_mm.__version__  # of this package
    classes: list[str] | None = None  # names of the actions; None: unknown
    shape: list[int | None]  # (T, h, w) of a clip; None: any
    batch: int | None  # clips at once; None: any number
    # Before a frame goes in, its long and short side are scaled to at most these, in
    # proportion; None in the list: any. None: not only that is done to frames.
    sides: list[int | None] | None = None
    frame_interval: int = 1  # frames of the video from one of a clip to the next
    keyframe: int | None = None  # its place in the clip, from 0
    ahead_s: float | None = None  # seconds from that frame to the one predicted
    beyond_ends: str = 'repeat'  # what stands for frames beyond the video's ends
    colours: str = 'RGB'
    mean: list[float] = field(default_factory=list)  # of the normalisation inside
    std: list[float] = field(default_factory=list)
    person_thr: float = 0.0  # keep queries from this person score
    nms_thr: float = 1.0  # of two with a larger IoU, keep the one with the higher score
    action_thr: float = 0.0  # name actions from this score
    precision: str = 'fp32'  # of most products
    tubelets: bool = False  # whether scores and boxes are those of each frame
    outputs: list[str] = field(default_factory=lambda: list(Outputs._fields))

    def to_text(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_text(cls, text: str | None) -> 'Metadata':
        """The inverse; raises ``ValueError`` if it does not describe such a model."""
        try:
            content = json.loads(text)
            names = {attribute.name for attribute in fields(cls)} & set(content)
            about = cls(**{name: content[name] for name in names})
        except (TypeError, ValueError):
            raise ValueError(FOREIGN) from None
        for name, is_valid in _VALID.items():
            value = getattr(about, name)
            if not is_valid(value):
                raise ValueError(f'{FOREIGN}: its metadata has {name}={value!r}')
        return about


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


# Of what the package itself reads.
_VALID: dict[str, Callable[[Any], bool]] = dict(
    classes=lambda names: (
        names is None
        or (
            isinstance(names, list)
            and all(isinstance(name, str) and name.isprintable() for name in names)
        )
    ),
    shape=lambda shape: (
        isinstance(shape, list)
        and len(shape) == 3
        and _is_count(shape[0])
        and all(size is None or _is_count(size) for size in shape)
    ),
    batch=lambda batch: batch is None or _is_count(batch),
    precision=lambda precision: precision in ('fp32', 'bf16'),
    tubelets=lambda tubelets: isinstance(tubelets, bool),
    outputs=lambda outputs: outputs == [*Outputs._fields],
)


def describe(traced: Traced, precision: str) -> Metadata:
    """Metadata of a model from ``init_detector``."""
    model = traced.detector.model
    transforms = next(dataset_configs(model.cfg, 'test'), {}).get('pipeline') or []
    sampler = transforms[find_sampler(transforms)]
    interval, ahead_s = sampler.get('frame_interval', 1), sampler.get('ahead_s')
    options = inspect.signature(ActionDetInferencer.stream).parameters
    return Metadata(
        classes=None if model.classes is None else [*model.classes],
        shape=traced.shape,
        batch=traced.batch,
        sides=_find_sides(transforms),
        frame_interval=interval,
        keyframe=SampleKeyframeClip(traced.shape[0], interval, ahead_s=ahead_s).place,
        ahead_s=ahead_s,
        mean=model.data_preprocessor.mean.flatten().tolist(),
        std=model.data_preprocessor.std.flatten().tolist(),
        person_thr=model.head.score_thr,
        nms_thr=options['nms_thr'].default,
        action_thr=options['pred_score_thr'].default,
        precision=precision,
        tubelets=reader_of(model).every_frame,
    )


def _find_sides(transforms: list[dict]) -> list[int | None] | None:
    """Largest sides, long and short, if the pipeline only resizes pictures to these."""
    names = [transform['type'].rpartition('.')[-1] for transform in transforms]
    decoder = find(names, lambda name: 'Decode' in name) or 0
    changes = [
        (name, transform)
        for name, transform in [*zip(names, transforms, strict=True)][decoder + 1 :]
        if not name.startswith(('Format', 'Pack'))
    ]
    if [(name, *transform) for name, transform in changes] != [
        ('Resize', 'type', 'scale')
    ]:
        return None
    short, long = sorted(changes[0][1]['scale'])
    return [None, long] if short == -1 else [long, short]
