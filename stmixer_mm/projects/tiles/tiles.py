"""Detection in tiles of the frame, beside the whole frame.

A clip of N tiles is V = N + 1 views, the whole frame first.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import Annotated, Any, NamedTuple

import numpy as np
from mmengine.structures import InstanceData
from torch import nn

from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.predict import Predictor, predict
from stmixer_mm.command_line import Count, OptionsOf
from stmixer_mm.datasets.clips import Clip
from stmixer_mm.datasets.videos import DamagedVideo, Frames, OnDamage
from stmixer_mm.errors import UserError, blame
from stmixer_mm.pictures import check_frame_size
from stmixer_mm.projects.tiles.layout import (
    LEAST_SIDE,
    VISIBLE,
    Layout,
    lay_out,
    lay_out_for,
)
from stmixer_mm.projects.tiles.merging import merge
from stmixer_mm.registry import Reuse


class Tiles:
    """Predicts persons in overlapping tiles of the frame and in the whole frame.

    It is a ``predictor`` of :meth:`.ActionDetInferencer.stream`. The views of a clip
    are one batch; several clips are, with ``batch_size``.

    Args:
        grid: 'ROWSxCOLUMNS', or 'auto'.
        min_person: With 'auto': height, in pixels of the video, of the smallest person
            that the model is to find.

    Raises:
        UserError: this is no grid; when predicting, also: tiles are too small, or the
            model carries persons from clip to clip.
    """

    def __init__(self, grid: str, *, min_person: int | None = None) -> None:
        sides = re.fullmatch(r'([1-9]\d{0,2})x([1-9]\d{0,2})', grid, re.ASCII)
        if sides is None and grid != 'auto':
            raise UserError(
                f'tiles={grid} is neither ROWSxCOLUMNS, such as 2x3, nor auto; correct '
                'it.'
            )
        if (grid == 'auto') != (min_person is not None):
            raise UserError(
                f'tiles={grid} with min_person={min_person}: give min_person with auto, '
                'and only with it.'
            )
        self.name = f'tiles={grid}' + f', min_person={min_person}' * (grid == 'auto')
        self.grid = sides and tuple(map(int, sides.groups()))
        self.min_person = min_person

    def __call__(
        self,
        model: nn.Module,
        loader: ClipLoader,
        clips: Iterable[Clip],
        *,
        batch_size: int,
        nms_thr: float | None,
        on_damage: OnDamage | None,
        reuse: Reuse,
    ) -> Iterator[tuple[Clip, InstanceData]]:
        """See :func:`.predict`."""
        for _, alike in groupby(clips, key=lambda clip: clip.size):
            options = dict(batch_size=batch_size, nms_thr=nms_thr)
            first = next(alike)
            alike = chain([first], alike)
            layout = self.lay_out(model, loader, first)
            if layout.grid == (1, 1):
                options |= dict(on_damage=on_damage, reuse=reuse)
                yield from predict(model, loader, alike, **options)
                continue
            boxes = layout.boxes()
            views = (view for clip in alike for view in _split(clip, boxes))
            options |= dict(on_damage=_once(on_damage), reuse=reuse)
            # Of whole clips, so that all batches are padded alike.
            options |= dict(batch_size=batch_size * len(boxes))
            predictions = predict(model, loader, views, **options)
            while group := list(islice(predictions, len(boxes))):
                of_views = [instances for _, instances in group]
                yield group[0][0], merge(of_views, boxes)

    def lay_out(self, model: nn.Module, loader: ClipLoader, clip: Clip) -> Layout:
        """The tiles for frames like those of a clip."""
        height, width = clip.size
        lines = _load_blank(loader, clip, clip.size)['inputs'].shape[-2]
        person = VISIBLE * height / lines
        if self.grid is None and self.min_person > height:
            raise UserError(
                f'{self.name}: frames are only {width}x{height}; give a smaller person.'
            )
        if self.grid is None:
            layout = lay_out_for(clip.size, self.min_person, person)
        else:
            about = getattr(model, 'metadata', None)  # of an exported file
            alike = about is not None and None not in about.shape
            layout = lay_out(clip.size, self.grid, person, alike=alike)
        tile = layout.tile
        subject = f'{self.name}: tiles of {width}x{height} are {tile[1]}x{tile[0]}'
        with blame(subject, 'use fewer tiles, or a larger min_person'):
            check_frame_size(*tile)
            if layout.grid != (1, 1) and min(tile) < LEAST_SIDE:
                raise ValueError(f'sides must be {LEAST_SIDE} pixels or more')
        return layout


class _Blank(NamedTuple):
    """A reader of black frames."""

    size: tuple[int, int]

    def get_batch(self, indices: Sequence[int]) -> Frames:
        return Frames(np.zeros((*self.size, 3), np.uint8) for _ in indices)


class _FrameCache:
    """A reader that decodes the frames of a clip once, for all of its views."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._batches: dict[tuple, Frames | DamagedVideo] = {}

    def get_batch(self, indices: Sequence[int]) -> Frames:
        key = tuple(map(int, indices))
        if key not in self._batches:
            try:
                self._batches[key] = self._reader.get_batch(indices)
            except DamagedVideo as error:
                self._batches[key] = error
        frames = self._batches[key]
        if isinstance(frames, DamagedVideo):
            raise frames
        return frames


class _Cropped(NamedTuple):
    """A reader of a part of the frames."""

    reader: Any
    box: Sequence[int]  # xyxy

    def get_batch(self, indices: Sequence[int]) -> Frames:
        x1, y1, x2, y2 = self.box
        return Frames(frame[y1:y2, x1:x2] for frame in self.reader.get_batch(indices))


def _with_reader(clip: Clip, reader: Any, view: int = 0) -> Clip:
    return clip._replace(sample=clip.sample | dict(video_reader=reader, view=view))


def _load_blank(loader: ClipLoader, clip: Clip, size: tuple[int, int]) -> dict:
    """Inputs from the pipeline for a clip like this one, of black frames of a size."""
    ((_, inputs),) = loader.load([_with_reader(clip, _Blank(size))], None)
    return inputs


def _split(clip: Clip, boxes: np.ndarray) -> list[Clip]:
    """The views of a clip."""
    reader = _FrameCache(clip.sample['video_reader'])
    return [
        _with_reader(clip, _Cropped(reader, box), view)
        for view, box in enumerate(boxes.tolist())
    ]


def _once(on_damage: OnDamage | None) -> OnDamage | None:
    """Called once for what all views of a clip lack."""
    if on_damage is None:
        return None
    last_damage = None

    def tell(damage: DamagedVideo) -> None:
        nonlocal last_damage
        if damage is not last_damage:
            last_damage = damage
            on_damage(damage)

    return tell


def choose_predictor(
    *,
    tiles: Annotated[str | None, dict(metavar='ROWSxCOLUMNS')] = None,
    min_person: Count | None = None,
) -> Predictor:
    """The predictor that a command line asks for.

    Args:
        tiles: Detect in overlapping tiles of the frame, too, for small persons: such as
            2x3, or auto with --min-person.
        min_person: Height in pixels of the smallest person to find with --tiles auto.
    """
    if tiles is None and min_person is None:
        return predict
    if tiles is None:
        raise UserError(f'--min-person {min_person} needs --tiles auto.')
    return Tiles(tiles, min_person=min_person)


TileOptions = Annotated[dict, OptionsOf(choose_predictor)]
