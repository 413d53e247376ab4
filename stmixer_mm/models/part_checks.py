"""What is wrong between the parts of a detector, said in one sentence.

What cannot be found out, such as a backbone that fails on all clips that are tried, or
an operation for one kind of device, is no error here.

Shapes: B clips, C channels, T frames of a map.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from stmixer_mm.errors import UserError
from stmixer_mm.models.backbones.framewise import FramewiseBackbone
from stmixer_mm.models.decoder.query_decoder import QueryDecoder
from stmixer_mm.models.parts import (
    BATCH_SIZE,
    SHRINKING,
    Part,
    Probe,
    Refusal,
    Settings,
    Trace,
    as_maps,
    describe,
    frames_of,
    list_parts,
    unnoticed,
)

HEAD_METHODS = ('loss', 'loss_denoising', 'predict')


def check_parts(
    model: nn.Module,
    settings: Mapping[str, Settings] | None = None,
    *,
    decoder: nn.Module | None = None,
    check_maps: Callable[[list[Tensor], tuple[int, int]], object] | None = None,
    clip_len: int | None = None,
    of_images: bool = False,
) -> None:
    """Compare what backbone and necks yield with what necks and decoder take.

    Args:
        model: A detector with ``backbone`` and ``neck``.
        settings: Its config, for the names and numbers in messages.
        decoder: A :class:`.QueryDecoder`, if the maps go to one.
        check_maps: What else to try on the maps and the size (h, w) of their clip.
        clip_len: Frames of the clips; without it, frames are compared only as far as
            they do not depend on it.
        of_images: Backbone and necks are those for images, run on clips of one frame.

    Raises:
        ValueError: Two parts do not fit.
    """
    settings = settings or {}
    parts = list_parts(model, settings)
    part = Part('decoder', 'model.decoder', decoder, settings.get('decoder', {}))
    with unnoticed():
        try:
            probe = Probe(parts, of_images=of_images)
        except Exception:  # as copies of what a part holds may
            return
        traces = _find_traces(probe, part, clip_len)
        if not traces:
            return
        _check_traces(probe, part, traces, clip_len)
        maps = as_maps(traces[0].feats[-1])
        if check_maps is not None and maps is not None:
            check_maps(maps, traces[0].clip[1:])


def check_kinds(
    decoder: nn.Module, head: nn.Module, settings: Mapping[str, Settings]
) -> None:
    """Raise a ``ValueError`` unless the head takes what the decoder yields.

    Args:
        decoder: It has to be a :class:`.QueryDecoder`.
        head: It has to have the methods of :class:`.STMixerHead`.
        settings: The config of both, for their names.
    """
    names = {
        kind: Part(kind, f'model.{kind}', module, settings[kind])
        for kind, module in (('decoder', decoder), ('head', head))
    }
    if not isinstance(decoder, QueryDecoder):
        raise UserError(
            f'The {names["decoder"]} is no QueryDecoder, which the {names["head"]} '
            'needs; set model.decoder to STMixerDecoder, DeformableDecoder or a '
            'subclass of QueryDecoder.'
        )
    lacking = [name for name in HEAD_METHODS if not hasattr(head, name)]
    if lacking:
        raise UserError(
            f'The {names["head"]} cannot take the stage outputs of the '
            f'{names["decoder"]}: it lacks {", ".join(lacking)}; set model.head to '
            'STMixerHead, or to a class with its methods.'
        )


def _find_traces(probe: Probe, decoder: Part, clip_len: int | None) -> list[Trace]:
    """One trace that fits the decoder, or all there are; none if nothing is known.

    Raises:
        ValueError: A part cannot take what it is given.
    """
    num_frames = getattr(decoder.module, 'num_frames', None)
    clips = probe.candidates(num_frames, clip_len)
    traces, refusals = probe.traces(
        clips, enough=lambda trace: num_frames is None or _frames(trace) == {num_frames}
    )
    if traces:
        return traces
    by_necks = [refusal for refusal in refusals if refusal.index > 0]
    if by_necks:
        return _trace_for_real(probe, by_necks[0].trace.clip)
    if not all(refusal.is_of_shapes for refusal in refusals):
        return _trace_for_real(probe, clips[0])
    if _takes_images(probe.twins[0], clips):
        raise UserError(
            f'The {probe.parts[0]} takes images (B, 3, H, W), not clips '
            '(B, 3, T, H, W); run it on each frame: model.backbone=dict(type='
            f"'FramewiseBackbone', backbone=dict(type='{probe.parts[0].type_name}', "
            '…)).'
        )
    inner = getattr(probe.twins[0], 'backbone', None)
    if isinstance(probe.parts[0].module, FramewiseBackbone) and _takes_clips(
        inner, clips
    ):
        raise UserError(
            f'The {probe.parts[0]} runs {type(inner).__name__} on single frames, which '
            'takes clips (B, 3, T, H, W); set model.backbone to it, without the '
            'wrapper.'
        )
    if clip_len is not None:
        others = probe.candidates(num_frames)
        possible, _ = probe.traces(others, enough=lambda trace: True)
        if possible:
            raise UserError(
                f'The {probe.parts[0]} cannot take clips of {clip_len} frames '
                f'({refusals[0].reason}); set clip_len in the pipelines to a number '
                f'that it can, such as {possible[0].clip[0]}.'
            )
    return []


def _trace_for_real(probe: Probe, clip: tuple[int, int, int]) -> list[Trace]:
    """See :func:`_find_traces`; only what happens to real tensors is an error."""
    try:
        return [probe.trace(clip, shrinking=SHRINKING)]
    except Refusal as refusal:
        if refusal.index > 0 and refusal.is_of_shapes:
            raise UserError(_refusal_sentence(probe, refusal)) from refusal.error
    return []


def _takes_images(backbone: nn.Module, clips: Sequence[tuple[int, int, int]]) -> bool:
    # Some take frames by the clip.
    sizes = {(BATCH_SIZE * frames, 3, *sides) for frames, *sides in clips}
    return any(_yields_maps(backbone, size) for size in sizes)


def _takes_clips(backbone: nn.Module, clips: Sequence[tuple[int, int, int]]) -> bool:
    return any(_yields_maps(backbone, (BATCH_SIZE, 3, *clip)) for clip in clips)


def _yields_maps(backbone: nn.Module, size: tuple[int, ...]) -> bool:
    """Whether a part makes of a tensor of this size some with as many dimensions."""
    try:
        feats = backbone(torch.empty(size, device='meta'))
    except Exception:  # a part may raise anything
        return False
    feats = [feats] if isinstance(feats, Tensor) else feats
    return isinstance(feats, list | tuple) and all(
        isinstance(feat, Tensor) and feat.dim() == len(size) for feat in feats
    )


def _check_traces(
    probe: Probe, decoder: Part, traces: Sequence[Trace], clip_len: int | None
) -> None:
    num_frames = getattr(decoder.module, 'num_frames', None)
    trace = min(traces, key=lambda trace: len(_frames(trace)))
    _check_settings(probe, trace)
    last, maps = probe.parts[-1], as_maps(trace.feats[-1])
    if not hasattr(decoder.module, 'check_maps'):
        return
    if maps is None:
        raise UserError(
            f'The {last} yields {describe(trace.feats[-1])} but the {decoder} takes a '
            'list of maps (B, C, T, H, W); set the arguments by which it yields them, '
            'or take another one.'
        )
    _check_channels(last, decoder, maps)
    decoder.module.check_maps(maps, trace.clip[1:])
    if num_frames is not None and _frames(trace) != {num_frames}:
        _check_frames(probe, decoder, traces, clip_len)


def _check_settings(probe: Probe, trace: Trace) -> None:
    """Not each layer compares channels on the meta device."""
    for index, part in enumerate(probe.parts):
        feats = trace.feats[index - 1]
        if index == 0 or _expected_channels(part, feats) is None:
            continue
        try:
            probe.run_for_real(index, feats, trace, SHRINKING)
        except Refusal as refusal:
            if refusal.is_of_shapes:
                raise UserError(_refusal_sentence(probe, refusal)) from refusal.error


def _check_channels(last: Part, decoder: Part, maps: Sequence[Tensor]) -> None:
    channels = [feat.size(1) for feat in maps]
    embed_dims = decoder.module.embed_dims
    if set(channels) == {embed_dims}:
        return
    remedy = (
        'put a neck behind it that brings them to one number, such as '
        'ChannelProjection3D'
    )
    if len(set(channels)) == 1:
        remedy = f'set {decoder.place}.embed_dims={channels[0]}'
        if 'out_channels' in last.settings:
            remedy += f', or {last.place}.out_channels={embed_dims}'
    raise UserError(
        f'The {last} yields {describe(maps)} but the {decoder} has '
        f'embed_dims={embed_dims}; {remedy}.'
    )


def _check_frames(
    probe: Probe, decoder: Part, traces: Sequence[Trace], clip_len: int | None
) -> None:
    """The traces do not fit; say so if those of the right clips cannot either."""
    num_frames = decoder.module.num_frames
    last, trace = probe.parts[-1], traces[0]
    frames = frames_of(trace.feats[-1])
    if all(len(_frames(each)) > 1 for each in traces):
        remedy = f"put dict(type='ResampleTime', num_frames={num_frames}) behind it"
        if 'num_frames' in vars(last.module):
            remedy = f'set {last.place}.num_frames={num_frames}'
        raise UserError(
            f'The {last} turns clips of {trace.clip[0]} frames into maps of '
            f'{", ".join(map(str, frames))} frames but the {decoder} needs as many in '
            f'all of them; {remedy}.'
        )
    always = {frame for each in traces for frame in _frames(each)}
    if clip_len is None and (len(traces) == 1 or len(always) > 1):
        return
    remedy = f'set {decoder.place}.num_frames={frames[0]}'
    if set(frames_of(trace.feats[0]) or ()) == set(frames):
        last = probe.parts[0]
    if last.kind == 'neck' and getattr(last.module, 'num_frames', None) == frames[0]:
        remedy += f' or {last.place}.num_frames={num_frames}'
    elif clip_len is not None:
        length = clip_len * num_frames // frames[0]
        remedy += _if_possible(probe, length, num_frames, trace)
    raise UserError(
        f'The {last} turns clips of {trace.clip[0]} frames into maps of {frames[0]} '
        f'frames but the {decoder} has num_frames={num_frames}; {remedy}.'
    )


def _if_possible(probe: Probe, length: int, num_frames: int, trace: Trace) -> str:
    try:
        possible = _frames(probe.trace((length, *trace.clip[1:]))) == {num_frames}
    except Refusal:
        possible = False
    return f', or clip_len={length} in the pipelines' if possible else ''


def _frames(trace: Trace) -> set[int]:
    return set(frames_of(trace.feats[-1]) or ())


def _refusal_sentence(probe: Probe, refusal: Refusal) -> str:
    part, source = probe.parts[refusal.index], probe.parts[refusal.index - 1]
    feats, yields = refusal.feats, describe(refusal.feats)
    expected = _expected_channels(part, feats)
    if expected is not None:
        place, settings, fitting = expected
        remedy = f'set {place}={fitting}'
        if fitting is None:
            remedy = (
                'put a neck before it that brings them to one number, or, if it reads '
                f'the last map alone, set {place}={as_maps(feats)[-1].size(1)}'
            )
        return (
            f'The {part} has in_channels={settings} but the {source} yields {yields}; '
            f'{remedy}.'
        )
    maps = as_maps(feats)
    if maps is not None and _takes_frames(probe.twins[refusal.index], maps):
        return (
            f'The {part} takes maps of images (B, C, H, W), not of clips as the '
            f'{source} yields; run it on each frame: {part.place}=dict(type='
            f"'FramewiseNeck', neck=dict(type='{part.type_name}', …))."
        )
    refused = f'The {part} cannot take the {yields} of the {source}'
    if isinstance(refusal.error, ValueError) and '; ' in refusal.reason:
        # It says by itself what to do.
        return f'{refused}: {refusal.reason}.'
    return f'{refused} ({refusal.reason}); use another {part.kind}, or other settings in {part.place}.'


def _takes_frames(neck: nn.Module, maps: Sequence[Tensor]) -> bool:
    try:
        neck([feat.transpose(1, 2).flatten(0, 1) for feat in maps])
    except Exception:  # a part may raise anything
        return False
    return True


def _expected_channels(part: Part, feats: object) -> tuple[str, object, object] | None:
    """A neck's ``in_channels`` if they are not those of its maps.

    Returns:
        Where they are set, what they are, and what would fit, if one number does.
    """
    place, settings = part.place, part.settings
    while 'in_channels' not in settings and isinstance(settings.get('neck'), Mapping):
        place, settings = f'{place}.neck', settings['neck']
    given = settings.get('in_channels')
    maps = as_maps(feats)
    is_list = isinstance(given, list | tuple)
    if maps is None or not all(
        type(one) is int for one in (given if is_list else [given])
    ):
        return None
    channels = [feat.size(1) for feat in maps]
    place = f'{place}.in_channels'
    if is_list:
        # In whichever order the neck wants them.
        same = sorted(given) == sorted(channels)
        return None if same else (place, list(given), channels)
    if set(channels) == {given} or channels[-1] == given:
        return None
    return place, given, channels[0] if len(set(channels)) == 1 else None
