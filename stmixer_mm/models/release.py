"""Names and sizes of the released STMixer checkpoints.

A released state dict becomes ours by renaming; the backbone and all sizes are read off
its names and shapes.
"""

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from mmaction.models.backbones.vit_mae import get_sinusoid_encoding
from torch import Tensor

from stmixer_mm.errors import UserError
from stmixer_mm.registry import MODELS

# Pairs of templates, released and ours: {n} stands for a number, {*} for the rest.
# The first that fits is taken, in either direction.
_STAGE_NAMES = (
    ('iof_tau', 'iof_tau'),
    ('samplingmixing.offset_generator.0.{*}', 'offsets.{*}'),
    ('human_fc_cls.{*}', 'person_branch.3.{*}'),
    ('human_cls_fcs.{n}.{*}', 'person_branch.{n}.{*}'),
    ('fc_reg.{*}', 'box_branch.3.{*}'),
    ('reg_fcs.{n}.{*}', 'box_branch.{n}.{*}'),
    ('fc_action.{*}', 'action_branch.3.{*}'),
    ('action_cls_fcs.{n}.{*}', 'action_branch.{n}.{*}'),
)
_QUERY_BRANCH_NAMES = (
    ('attention_{x}.attn.{*}', 'attention.{*}'),
    ('attention_norm_{x}.{*}', 'attention_norm.{*}'),
    ('ffn_{x}.{*}', 'ffn.{*}'),
    ('ffn_norm_{x}.{*}', 'ffn_norm.{*}'),
    ('samplingmixing.norm_{x}.{*}', 'mixing_norm.{*}'),
    (
        'samplingmixing.adaptive_mixing_{x}.parameter_generator.0.{*}',
        'mixing.weight_generator.{*}',
    ),
    ('samplingmixing.adaptive_mixing_{x}.out_proj.{*}', 'mixing.out_proj.{*}'),
)
_VIT_NAMES = (
    ('patch_embed.proj.{*}', 'patch_embed.projection.{*}'),
    ('blocks.{n}.mlp.fc1.{*}', 'blocks.{n}.mlp.layers.0.0.{*}'),
    ('blocks.{n}.mlp.fc2.{*}', 'blocks.{n}.mlp.layers.1.{*}'),
    ('blocks.{n}.{*}', 'blocks.{n}.{*}'),
    ('norm.{*}', 'norm.{*}'),
)
_NON_LOCAL_NAMES = (
    ('conv_theta', 'theta'),
    ('conv_phi', 'phi'),
    ('conv_g', 'g'),
    ('conv_out', 'conv_out'),
    ('bn', 'bn'),
)
# Entries of a released state dict that are not parameters of the model.
_IGNORED = re.compile(r'(stm_head\.)?criterion\.empty_weight')


def _resnet_names(pathway: int) -> Iterable[tuple[str, str]]:
    source = f'pathway{pathway}'
    yield f's1.{source}_stem.{{*}}', 'conv1.{*}'
    for stage in range(2, 6):
        layer = f'layer{stage - 1}'
        block = f's{stage}.{source}_res{{n}}'
        yield f'{block}.branch1.{{*}}', f'{layer}.{{n}}.downsample.conv.{{*}}'
        yield f'{block}.branch1_bn.{{*}}', f'{layer}.{{n}}.downsample.bn.{{*}}'
        for letter, number in zip('abc', '123', strict=True):
            conv = f'{layer}.{{n}}.conv{number}'
            yield f'{block}.branch2.{letter}.{{*}}', f'{conv}.conv.{{*}}'
            yield f'{block}.branch2.{letter}_bn.{{*}}', f'{conv}.bn.{{*}}'
        for name, ours in _NON_LOCAL_NAMES:
            yield (
                f's{stage}.{source}_nonlocal{{n}}.{name}.{{*}}',
                f'{layer}.{{n}}.non_local_block.{ours}.{{*}}',
            )


def _backbone_names(backbone: str) -> Iterable[tuple[str, str]]:
    if backbone == 'vit':
        yield from _VIT_NAMES
    elif backbone == 'slowonly':
        yield from _resnet_names(0)
    else:
        for pathway, prefix in enumerate(('slow_path', 'fast_path')):
            for released, ours in _resnet_names(pathway):
                yield released, f'{prefix}.{ours}'
        for stage in range(1, 5):
            lateral = 'conv1_lateral' if stage == 1 else f'layer{stage - 1}_lateral'
            yield f's{stage}_fuse.conv_f2s.{{*}}', f'slow_path.{lateral}.conv.{{*}}'
            yield f's{stage}_fuse.bn.{{*}}', f'slow_path.{lateral}.bn.{{*}}'


def _all_names(backbone: str) -> Iterable[tuple[str, str]]:
    for released, ours in _backbone_names(backbone):
        yield f'backbone.{released}', f'backbone.{ours}'
    neck = 'branches' if backbone == 'vit' else 'projections'
    yield 'lateral_convs.{*}', f'neck.{neck}.{{*}}'
    for kind in ('spatial', 'temporal'):
        yield f'stm_head.init_{kind}_queries.{{*}}', f'decoder.{kind}_queries.{{*}}'
    stage, our_stage = 'stm_head.decoder_stages.{i}', 'decoder.stages.{i}'
    for released, ours in _STAGE_NAMES:
        yield f'{stage}.{released}', f'{our_stage}.{ours}'
    for letter, kind in (('s', 'spatial'), ('t', 'temporal')):
        for released, ours in _QUERY_BRANCH_NAMES:
            released = released.replace('{x}', letter)
            yield f'{stage}.{released}', f'{our_stage}.{kind}.{ours}'


def _to_pattern(template: str) -> re.Pattern:
    pattern = re.escape(template).replace(r'\{\*\}', r'(?P<rest>.+)')
    return re.compile(re.sub(r'\\\{(\w)\\\}', r'(?P<\1>\\d+)', pattern))


def _to_replacement(template: str) -> str:
    return re.sub(r'\{(\w)\}', r'\\g<\1>', template.replace('{*}', r'\g<rest>'))


Renaming = Callable[[str], str | None]


def _renaming(pairs: Iterable[tuple[str, str]]) -> Renaming:
    rules = [(_to_pattern(old), _to_replacement(new)) for old, new in pairs]

    def rename(name: str) -> str | None:
        matches = ((old.fullmatch(name), new) for old, new in rules)
        return next((match.expand(new) for match, new in matches if match), None)

    return rename


def release_renaming(backbone: str) -> tuple[Renaming, Renaming]:
    """Released names to ours, and ours to released ones; None for an unknown name."""
    pairs = list(_all_names(backbone))
    return _renaming(pairs), _renaming((ours, theirs) for theirs, ours in pairs)


def find_backbone(names: Iterable[str]) -> str:
    """'vit', 'slowfast' or 'slowonly', by the parameters' released names.

    Raises:
        UserError: It is none of them.
    """
    names = list(names)
    for start, backbone in (
        ('backbone.patch_embed.', 'vit'),
        ('backbone.s1.pathway1_', 'slowfast'),
        ('backbone.s1.pathway0_', 'slowonly'),
    ):
        if any(name.startswith(start) for name in names):
            return backbone
    raise UserError(
        'The backbone is not a SlowOnly, SlowFast or ViT of the STMixer release (first '
        f'names: {names[:3]}); give a released STMixer checkpoint.'
    )


def convert_state_dict(released: Mapping[str, Tensor]) -> tuple[dict, dict]:
    """Rename a released state dict to this package's names.

    Args:
        released: Released names to tensors, of any sizes.

    Returns:
        Our state dict, and the config of the backbone, neck and decoder that it fits.

    Raises:
        UserError: Names are left over or missing, or a shape fits no model; the
            message lists them.
    """
    released = {
        name.removeprefix('module.'): value
        for name, value in released.items()
        if not _IGNORED.fullmatch(name.removeprefix('module.'))
    }
    backbone = find_backbone(released)
    to_ours, to_released = release_renaming(backbone)
    converted, left_over = {}, []
    for name, value in released.items():
        ours = to_ours(name)
        if ours is None or ours in converted:
            left_over.append(name)
        else:
            converted[ours] = value
    parts = _read_parts(converted, backbone, to_released)
    expected = {
        f'{part}.{name}': value
        for part, config in parts.items()
        for name, value in MODELS.build(config).state_dict().items()
    }
    if backbone == 'vit':
        # A buffer in the host's class, made anew at every start in the release.
        converted['backbone.pos_embed'] = get_sinusoid_encoding(
            *expected['backbone.pos_embed'].shape[1:]
        )
    left_over += [to_released(name) for name in converted if name not in expected]
    missing = [to_released(name) for name in expected if name not in converted]
    misshaped = [
        f'{to_released(name)} {tuple(converted[name].shape)} instead of '
        f'{tuple(value.shape)}'
        for name, value in expected.items()
        if name in converted and converted[name].shape != value.shape
    ]
    _fail_on(('left over', left_over), ('missing', missing), ('other shape', misshaped))
    return converted, parts


def _fail_on(*faults: tuple[str, list[str]]) -> None:
    lists = [f'{what}: {", ".join(names)}' for what, names in faults if names]
    if lists:
        raise UserError(
            'This is not a complete released STMixer checkpoint ('
            + '; '.join(lists)
            + '); give the file as it was released.'
        )


def _read_parts(
    state_dict: Mapping[str, Tensor], backbone: str, to_released: Renaming
) -> dict[str, dict]:
    """Configs of backbone, neck and decoder, by a renamed state dict."""

    def shape(name: str) -> torch.Size:
        if name not in state_dict:
            _fail_on(('missing', [to_released(name)]))
        return state_dict[name].shape

    def numbers(pattern: str) -> list[int]:
        """The numbers that names have in place of the pattern's group, sorted."""
        found = [re.match(pattern, name) for name in state_dict]
        return sorted({int(match[1]) for match in found if match})

    stage = 'decoder.stages.0'
    num_queries, embed_dims = shape('decoder.spatial_queries.weight')
    decoder = dict(
        type='stmixer_mm.STMixerDecoder',
        embed_dims=embed_dims,
        num_queries=num_queries,
        num_stages=len(numbers(r'decoder\.stages\.(\d+)\.')),
        num_heads=shape(f'{stage}.iof_tau')[0],
        feedforward_channels=shape(f'{stage}.spatial.ffn.layers.0.0.weight')[0],
        num_classes=shape(f'{stage}.action_branch.3.weight')[0] + 1,
        **_solve_mixing_sizes(
            embed_dims=embed_dims,
            offsets=shape(f'{stage}.offsets.weight')[0],
            point_weights=shape(f'{stage}.spatial.mixing.weight_generator.weight')[0],
            point_rows=shape(f'{stage}.spatial.mixing.out_proj.weight')[1],
            frame_rows=shape(f'{stage}.temporal.mixing.out_proj.weight')[1],
        ),
    )
    if backbone == 'vit':
        channels, _, tubelet_size, patch_size, _ = shape(
            'backbone.patch_embed.projection.weight'
        )
        backbone_config = dict(
            type='mmaction.VisionTransformer',
            embed_dims=channels,
            depth=len(numbers(r'backbone\.blocks\.(\d+)\.')),
            num_heads=channels // 64,
            mlp_ratio=shape('backbone.blocks.0.mlp.layers.0.0.weight')[0] / channels,
            patch_size=patch_size,
            tubelet_size=tubelet_size,
            num_frames=decoder['num_frames'] * tubelet_size,
            use_mean_pooling=False,
            return_feat_map=True,
        )
        neck = dict(
            type='stmixer_mm.ViTPyramid3D',
            in_channels=channels,
            out_channels=embed_dims,
        )
        return dict(backbone=backbone_config, neck=neck, decoder=decoder)
    if backbone == 'slowfast':
        layer3 = r'backbone\.slow_path\.layer3'
        backbone_config = dict(
            type='stmixer_mm.ResNet3dSlowFastPyramid',
            depth=_resnet_depth(numbers(rf'{layer3}\.(\d+)\.')),
            fusion_kernel=shape('backbone.slow_path.conv1_lateral.conv.weight')[2],
            non_local_blocks=numbers(rf'{layer3}\.(\d+)\.non_local_block\.'),
        )
    else:
        backbone_config = dict(
            type='mmaction.ResNet3dSlowOnly',
            depth=_resnet_depth(numbers(r'backbone\.layer3\.(\d+)\.')),
            out_indices=(0, 1, 2, 3),
        )
    in_channels = [shape(f'neck.projections.{level}.weight')[1] for level in range(4)]
    neck = dict(
        type='stmixer_mm.ChannelProjection3D',
        in_channels=in_channels,
        out_channels=embed_dims,
    )
    return dict(backbone=backbone_config, neck=neck, decoder=decoder)


def _resnet_depth(res4_blocks: list[int]) -> int:
    return {23: 101, 36: 152}.get(len(res4_blocks), 50)


def _solve_mixing_sizes(
    *,
    embed_dims: int,
    offsets: int,
    point_weights: int,
    point_rows: int,
    frame_rows: int,
) -> dict[str, int]:
    """Groups, points, frames and multiplier by the widths of the layers.

    With C = G c: offsets = 3 G P, weights = G (c^2 + m P^2), rows = C m N.
    """
    for num_groups in range(1, offsets // 3 + 1):
        num_points = offsets // (3 * num_groups)
        out_multiplier = point_rows // (embed_dims * num_points)
        group_weights = (embed_dims // num_groups) ** 2 + out_multiplier * num_points**2
        if (
            embed_dims % num_groups == 0
            and 3 * num_groups * num_points == offsets
            and embed_dims * out_multiplier * num_points == point_rows
            and num_groups * group_weights == point_weights
        ):
            return dict(
                num_groups=num_groups,
                num_points=num_points,
                out_multiplier=out_multiplier,
                num_frames=frame_rows // (embed_dims * out_multiplier),
            )
    raise UserError(
        f'No number of groups fits {offsets} offsets and {point_weights} mixing '
        'weights; give the checkpoint as it was released.'
    )
