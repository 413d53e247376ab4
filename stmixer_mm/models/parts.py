"""Shapes that flow between the parts of a detector, known before anything runs.

Twins of the backbone and the necks run on PyTorch's meta device: shapes without values,
in a fraction of a second, whatever the size of the model. The parts themselves, the
random numbers and the caches of other devices stay as they are.

Shapes: B clips, C channels, T frames of a map, L levels.
"""

import copy
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

# More than one clip, so that a batch is not taken for a list of maps.
BATCH_SIZE = 2
# Heights and widths to try. Powers of two first: any neck can halve and double them.
SIDES = (256, 224)
# Where a map's sides are divided by this, a neck soon runs for real.
SHRINKING = (4, 2, 1)
# What backbones for one size call it.
_LENGTH_NAMES = ('num_frames', 'num_segments', 'temporal_size', 't_size', 'clip_len')
_SIDE_NAMES = ('img_size', 'spatial_size', 'input_resolution', 'input_size')
# Errors that speak of these say nothing of the shapes.
_NOT_OF_SHAPES = re.compile(
    r'cuda|gpu|cpu|device|meta|backend|triton|compil|implement|memory', re.IGNORECASE
)

Feats = Tensor | Sequence[Tensor]
Settings = Mapping[str, object] | Sequence[Mapping[str, object]] | None


class Part(NamedTuple):
    """A backbone, a neck or a decoder."""

    kind: str
    place: str  # of its settings in the config, as in 'model.neck[0]'
    module: nn.Module | None
    settings: Mapping[str, object]

    @property
    def type_name(self) -> str:
        name = self.settings.get('type')
        return name if isinstance(name, str) else type(self.module).__name__

    def __str__(self) -> str:
        return f'{self.kind} {self.type_name}'


class Trace(NamedTuple):
    """What the parts make of a clip."""

    clip: tuple[int, int, int]  # frames, height and width
    feats: list[Feats]  # of each part, on the meta device


class Refusal(Exception):
    """A part raises ``error`` for ``feats``, which those before it made of a clip."""

    def __init__(self, index: int, feats: Feats, error: Exception, trace: Trace):
        super().__init__(str(error))
        self.index = index
        self.feats = feats
        self.error = error
        self.trace = trace

    @property
    def reason(self) -> str:
        """The first line of the error's message."""
        lines = str(self.error).strip().splitlines()
        return lines[0].rstrip('.') if lines else type(self.error).__name__

    @property
    def is_of_shapes(self) -> bool:
        text = str(self.error) or type(self.error).__name__
        return not (isinstance(self.error, ImportError) or _NOT_OF_SHAPES.search(text))


def list_parts(model: nn.Module, settings: Mapping[str, Settings]) -> list[Part]:
    """The backbone of a model and its necks, in the order in which they run."""
    parts = [
        Part('backbone', 'model.backbone', model.backbone, settings.get('backbone', {}))
    ]
    neck, given = getattr(model, 'neck', None), settings.get('neck')
    if getattr(type(neck), 'forward', None) is nn.Sequential.forward:
        given = given if isinstance(given, Sequence) else [{}] * len(neck)
        for index, (module, one) in enumerate(zip(neck, given, strict=True)):
            parts.append(Part('neck', f'model.neck[{index}]', module, one))
    elif neck is not None:
        parts.append(Part('neck', 'model.neck', neck, given or {}))
    return parts


class Probe:
    """Runs parts for their shapes alone.

    Args:
        parts: A backbone and its necks.
        of_images: They take images and maps (B, C, H, W); these stand for clips of one
            frame.

    Raises:
        Exception: A part cannot be copied.
    """

    def __init__(self, parts: Sequence[Part], *, of_images: bool = False) -> None:
        self.parts = parts
        self.of_images = of_images
        self.twins = [meta_twin(part.module) for part in parts]

    def trace(
        self, clip: tuple[int, int, int], *, shrinking: Sequence[int] = ()
    ) -> Trace:
        """What the parts make of clips (frames, height, width).

        Args:
            clip: Frames, height and width.
            shrinking: Where meta tensors will not do, run a part for real, with sides
                divided by these until it takes them. The clip's size and the maps
                before it are then divided too.

        Raises:
            Refusal: A part does not take what it is given.
        """
        trace = Trace(clip, [])
        feats: Feats = torch.empty(BATCH_SIZE, 3, *clip, device='meta')
        for index, twin in enumerate(self.twins):
            given = feats
            try:
                feats = self.run(twin, given)
            except Exception as error:  # a part may raise anything
                if not shrinking:
                    raise Refusal(index, given, error, trace) from error
                trace, feats = self.run_for_real(index, given, trace, shrinking)
            trace.feats.append(feats)
        return trace

    def run(self, part: Callable[[Feats], Feats], feats: Feats) -> Feats:
        """What a part makes of maps (B, C, T, H_l, W_l), or of clips."""
        if not self.of_images:
            return part(feats)
        images = _map(feats, lambda feat: feat.squeeze(2))
        return _map(part(images), lambda feat: feat.unsqueeze(2))

    def run_for_real(
        self, index: int, feats: Feats, trace: Trace, shrinking: Sequence[int]
    ) -> tuple[Trace, Feats]:
        """See :meth:`trace`; what part ``index`` makes of ``feats``, and how large."""
        module = self.parts[index].module
        refusal = None
        for divisor in shrinking:
            try:
                outputs = self.run(
                    partial(run_for_real, module), _shrink(feats, divisor)
                )
            except Exception as error:  # as above
                refusal = Refusal(index, feats, error, trace)
            else:
                frames, *sides = trace.clip
                clip = (frames, *(-(-side // divisor) for side in sides))
                before = [_shrink(earlier, divisor) for earlier in trace.feats]
                return Trace(clip, before), outputs
        raise refusal

    def candidates(
        self, num_frames: int | None, clip_len: int | None = None
    ) -> list[tuple[int, int, int]]:
        """Clips that the backbone may take, those of a size next to each other.

        Args:
            num_frames: T of the maps that the decoder needs, if it needs one.
            clip_len: Frames of the clips, if they are known.
        """
        backbone = self.parts[0]
        sides = [*_numbers(backbone, _SIDE_NAMES), *SIDES]
        if self.of_images:
            lengths = [1]
        elif clip_len is not None:
            lengths = [clip_len]
        else:
            # Not 1 by itself: levels that differ in length are then alike.
            multiples = [(num_frames or 1) * factor for factor in (1, 2, 4, 8)]
            lengths = [*multiples, *_numbers(backbone, _LENGTH_NAMES), 32, 16]
        return [
            (length, *(side if isinstance(side, tuple) else (side, side)))
            for side in dict.fromkeys(sides)
            for length in dict.fromkeys(lengths)
        ]

    def traces(
        self, clips: Iterable[tuple[int, int, int]], enough: Callable[[Trace], bool]
    ) -> tuple[list[Trace], list[Refusal]]:
        """Traces of ``clips`` up to one that is ``enough``, which then is the only one.

        Clips of another size are tried only as long as there is no trace at all.
        """
        traces, refusals = [], []
        for clip in clips:
            if traces and clip[1:] != traces[0].clip[1:]:
                break
            try:
                trace = self.trace(clip)
            except Refusal as refusal:
                refusals.append(refusal)
                continue
            if enough(trace):
                return [trace], []
            traces.append(trace)
        return traces, refusals


@contextmanager
def unnoticed() -> Iterator[None]:
    """No gradients, no warnings, and the random numbers as they were."""
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter('ignore')
        yield


def meta_twin(module: nn.Module) -> nn.Module:
    """A copy for evaluation whose tensors have shapes and no memory."""
    return _twin(module, lambda tensor: torch.empty_like(tensor, device='meta'))


def run_for_real(module: nn.Module, feats: Feats) -> Feats:
    """What a part makes of zeros of these shapes, as meta tensors.

    The part itself is not run, but a copy that shares its parameters.
    """
    parameter = next(module.parameters(), None)
    device = 'cpu' if parameter is None else parameter.device
    if torch.device(device).type == 'meta':
        raise NotImplementedError
    twin = _twin(
        module,
        lambda tensor: tensor if isinstance(tensor, nn.Parameter) else tensor.clone(),
    )
    return _map(
        twin(_map(feats, lambda feat: torch.zeros(feat.shape, device=device))),
        lambda feat: torch.empty_like(feat, device='meta'),
    )


def _twin(module: nn.Module, replace: Callable[[Tensor], Tensor]) -> nn.Module:
    # What is in the memo is not copied.
    memo = {}
    for child in module.modules():
        for tensor in _tensors_in(vars(child)):
            if id(tensor) not in memo:
                twin = replace(tensor)
                if isinstance(tensor, nn.Parameter) and twin is not tensor:
                    twin = nn.Parameter(twin, requires_grad=False)
                memo[id(tensor)] = twin
    twin = copy.deepcopy(module, memo)
    twin.eval()  # returns nothing in some of the host's backbones
    return twin


def _tensors_in(node: object) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _tensors_in(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _tensors_in(value)


def _map(feats: Feats, change: Callable[[Tensor], Tensor]) -> Feats:
    if isinstance(feats, Tensor):
        return change(feats)
    return [_map(feat, change) for feat in feats]


def _shrink(feats: Feats, divisor: int) -> Feats:
    def shrink(feat: Tensor) -> Tensor:
        *others, height, width = feat.shape
        sides = (-(-side // divisor) for side in (height, width))
        return feat.new_empty(*others, *sides)

    return _map(feats, shrink)


def _numbers(part: Part, names: Sequence[str]) -> list[int | tuple[int, int]]:
    """What a part's settings and its modules call one of these names."""
    found = [value for name, value in _items(part.settings) if name in names]
    for module in part.module.modules():
        found += [vars(module)[name] for name in names if name in vars(module)]
    numbers = []
    for value in found:
        if isinstance(value, list | tuple):
            value = tuple(value)[-2:]
        is_pair = isinstance(value, tuple) and len(value) == 2
        if all(type(n) is int and n > 0 for n in (value if is_pair else [value])):
            numbers.append(value)
    return numbers


def _items(settings: object) -> Iterator[tuple[str, object]]:
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            yield name, value
            yield from _items(value)


def as_maps(feats: object) -> list[Tensor] | None:
    """A map (B, C, T, h, w), or several, in a list; None if there are none."""
    if isinstance(feats, Tensor):
        feats = [feats]
    if not isinstance(feats, list | tuple) or not feats:
        return None
    are_maps = all(isinstance(feat, Tensor) and feat.dim() == 5 for feat in feats)
    return list(feats) if are_maps else None


def frames_of(feats: object) -> tuple[int, ...] | None:
    """T of each map, None if there are no maps."""
    maps = as_maps(feats)
    return None if maps is None else tuple(feat.size(2) for feat in maps)


def describe(feats: object) -> str:
    """What a part yields, in words."""
    maps = as_maps(feats)
    if maps is None:
        if isinstance(feats, Tensor):
            return f'a tensor (B, {", ".join(map(str, feats.shape[1:]))})'
        if isinstance(feats, list | tuple):
            return f'a {type(feats).__name__} of {", ".join(map(describe, feats))}'
        return f'a {type(feats).__name__}'
    channels = ', '.join(str(feat.size(1)) for feat in maps)
    return f'{len(maps)} map{"s" * (len(maps) > 1)} of {channels} channels'
