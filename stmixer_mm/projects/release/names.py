"""Names and sizes of the released STMixer checkpoints.

The released name of each of our parameters follows from rules; the backbone and all
sizes are read off the released names and shapes.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from stmixer_mm.errors import UserError, blame
from stmixer_mm.registry import MODELS

FAULT = 'This is not a complete released STMixer checkpoint'
REMEDY = 'give the file as it was released'

_QUERIES = r'\.([st])(?:patial|emporal)'
# Patterns in our names and their counterparts in the release, applied in this order.
_RULES = (
    (r'^neck\.(branches|projections)', 'lateral_convs'),
    # The decoder.
    (r'^decoder\.(spatial|temporal)_queries', r'stm_head.init_\1_queries'),
    (r'^decoder\.stages', 'stm_head.decoder_stages'),
    (r'\.offsets\.', '.samplingmixing.offset_generator.0.'),
    (r'\.person_branch\.3\.', '.human_fc_cls.'),
    (r'\.person_branch\.', '.human_cls_fcs.'),
    (r'\.box_branch\.3\.', '.fc_reg.'),
    (r'\.box_branch\.', '.reg_fcs.'),
    (r'\.action_branch\.3\.', '.fc_action.'),
    (r'\.action_branch\.', '.action_cls_fcs.'),
    (rf'{_QUERIES}\.attention\.', r'.attention_\1.attn.'),
    (rf'{_QUERIES}\.(attention_norm|ffn|ffn_norm)\.', r'.\2_\1.'),
    (rf'{_QUERIES}\.mixing_norm\.', r'.samplingmixing.norm_\1.'),
    (rf'{_QUERIES}\.mixing\.', r'.samplingmixing.adaptive_mixing_\1.'),
    (r'\.weight_generator\.', '.parameter_generator.0.'),
    # A ViT.
    (r'^backbone\.patch_embed\.projection\.', 'backbone.patch_embed.proj.'),
    (r'\.mlp\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.mlp\.layers\.1\.', '.mlp.fc2.'),
    # A SlowFast; a SlowOnly is its slow path.
    (r'^backbone\.(?=conv1\.|layer\d)', 'backbone.slow_path.'),
    (r'\.slow_path\.(conv1|layer\d)_lateral\.', r'.\1_fuse.'),
    (r'_fuse\.conv\.', '_fuse.conv_f2s.'),
    (r'\.slow_path\.(conv1|layer\d)\.', r'.\1.pathway0_'),
    (r'\.fast_path\.(conv1|layer\d)\.', r'.\1.pathway1_'),
    (r'\.conv1\.(pathway\d_)', r'.s1.\1stem.'),
    (r'\.conv1_fuse\.', '.s1_fuse.'),
    *((rf'\.layer{layer}(?=[._])', f'.s{layer + 1}') for layer in range(1, 5)),
    (r'(\.pathway\d_)(\d+)\.non_local_block\.', r'\1nonlocal\2.'),
    (r'(_nonlocal\d+)\.(theta|phi|g)\.', r'\1.conv_\2.'),
    (r'(\.pathway\d_)(?=\d)', r'\1res'),
    (r'\.downsample\.', '.branch1.'),
    (r'\.conv1\.', '.branch2.a.'),
    (r'\.conv2\.', '.branch2.b.'),
    (r'\.conv3\.', '.branch2.c.'),
    (r'(\.branch.*)\.conv\.', r'\1.'),
    (r'(\.branch.*)\.bn\.', r'\1_bn.'),
)
# Entries of a released state dict that are not parameters of the model.
_IGNORED = re.compile(r'(stm_head\.)?criterion\.empty_weight')
# A buffer of the host's ViT, which the release makes anew at every start.
_OURS_ALONE = 'backbone.pos_embed'


def released_name(name: str) -> str:
    """The release's name of a parameter of ours."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def convert_state_dict(released: Mapping[str, Tensor]) -> tuple[dict, dict]:
    """Rename a released state dict, of any sizes, to this package's names.

    Returns:
        Our state dict, and the config of the backbone, neck and decoder that it fits.

    Raises:
        UserError: Lists names that are left over or missing, and shapes of no model.
    """
    released = {name.removeprefix('module.'): released[name] for name in released}
    released = {
        name: value for name, value in released.items() if not _IGNORED.fullmatch(name)
    }
    with blame(FAULT, REMEDY):
        parts = read_parts(released)
        expected = {
            f'{part}.{name}': value
            for part, config in parts.items()
            for name, value in MODELS.build(config).state_dict().items()
        }
    converted, missing, misshaped = {}, [], []
    for name, value in expected.items():
        old_name = released_name(name)
        if name == _OURS_ALONE:
            converted[name] = value
        elif old_name not in released:
            missing.append(old_name)
        else:
            converted[name] = parameter = released.pop(old_name)
            if parameter.shape != value.shape:
                shapes = tuple(parameter.shape), tuple(value.shape)
                misshaped.append(f'{old_name} {shapes[0]} instead of {shapes[1]}')
    faults = {'left over': released, 'missing': missing, 'other shape': misshaped}
    lists = [f'{fault}: {", ".join(names)}' for fault, names in faults.items() if names]
    if lists:
        raise UserError(f'{FAULT} ({"; ".join(lists)}); {REMEDY}.')
    return converted, parts


def read_parts(released: Mapping[str, Tensor]) -> dict[str, dict]:
    """Configs of backbone, neck and decoder, by the names and shapes of a release."""
    names = _Names(released)
    if names.starts('backbone.patch_embed.'):
        read_backbone = _read_vit
    elif names.starts('backbone.s1.pathway0_'):
        read_backbone = _read_resnet
    else:
        raise UserError(
            'The backbone is not a SlowOnly, SlowFast or ViT of the STMixer release '
            f'(first names: {list(released)[:3]}); give a released STMixer checkpoint.'
        )
    decoder = _read_decoder(names)
    backbone, neck = read_backbone(names, decoder['num_frames'])
    neck['out_channels'] = decoder['embed_dims']
    return dict(backbone=backbone, neck=neck, decoder=decoder)


class _Names:
    """Names and shapes of a release."""

    def __init__(self, released: Mapping[str, Tensor]) -> None:
        self.released = released

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.released:
            raise UserError(f'{FAULT} (missing: {name}); {REMEDY}.')
        return self.released[name].shape

    def numbers(self, prefix: str) -> list[int]:
        """The numbers behind a prefix of names, sorted."""
        matches = [re.match(rf'{prefix}(\d+)\.', name) for name in self.released]
        return sorted({int(match[1]) for match in matches if match})

    def starts(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.released)


def _read_decoder(names: _Names) -> dict:
    num_queries, width = names.shape('stm_head.init_spatial_queries.weight')
    stage = 'stm_head.decoder_stages.0'
    mixing = f'{stage}.samplingmixing'
    # With C = G c: offsets = 3 G P, weights = G (c^2 + m P^2), rows = C m P or C m T.
    (offsets,) = names.shape(f'{mixing}.offset_generator.0.bias')
    (weights,) = names.shape(f'{mixing}.adaptive_mixing_s.parameter_generator.0.bias')
    _, point_rows = names.shape(f'{mixing}.adaptive_mixing_s.out_proj.weight')
    _, frame_rows = names.shape(f'{mixing}.adaptive_mixing_t.out_proj.weight')
    num_groups = width**2 // (weights - offsets * point_rows // (3 * width))
    num_points = offsets // (3 * num_groups)
    out_multiplier = point_rows // (width * num_points)
    return dict(
        type='stmixer_mm.STMixerDecoder',
        num_frames=frame_rows // (width * out_multiplier),
        embed_dims=width,
        num_queries=num_queries,
        num_stages=len(names.numbers(r'stm_head\.decoder_stages\.')),
        num_heads=names.shape(f'{stage}.iof_tau')[0],
        feedforward_channels=names.shape(f'{stage}.ffn_s.layers.0.0.weight')[0],
        num_groups=num_groups,
        num_points=num_points,
        out_multiplier=out_multiplier,
        num_classes=names.shape(f'{stage}.fc_action.weight')[0] + 1,
    )


def _read_vit(names: _Names, num_frames: int) -> tuple[dict, dict]:
    channels, _, tubelet_size, patch_size, _ = names.shape(
        'backbone.patch_embed.proj.weight'
    )
    backbone = dict(
        type='mmaction.VisionTransformer',
        embed_dims=channels,
        depth=len(names.numbers(r'backbone\.blocks\.')),
        num_heads=channels // 64,
        mlp_ratio=names.shape('backbone.blocks.0.mlp.fc1.weight')[0] / channels,
        patch_size=patch_size,
        tubelet_size=tubelet_size,
        num_frames=num_frames * tubelet_size,
        use_mean_pooling=False,
        return_feat_map=True,
    )
    return backbone, dict(type='stmixer_mm.ViTPyramid3D', in_channels=channels)


def _read_resnet(names: _Names, num_frames: int) -> tuple[dict, dict]:
    """SlowFast, or SlowOnly, which is its slow pathway."""
    res4 = names.numbers(r'backbone\.s4\.pathway0_res')
    depth = {23: 101, 36: 152}.get(len(res4), 50)
    backbone = dict(
        type='mmaction.ResNet3dSlowOnly', depth=depth, out_indices=(0, 1, 2, 3)
    )
    if names.starts('backbone.s1.pathway1_'):
        backbone = dict(
            type='stmixer_mm.ResNet3dSlowFastPyramid',
            depth=depth,
            fusion_kernel=names.shape('backbone.s1_fuse.conv_f2s.weight')[2],
            non_local_blocks=names.numbers(r'backbone\.s4\.pathway0_nonlocal'),
        )
    channels = [names.shape(f'lateral_convs.{level}.weight')[1] for level in range(4)]
    return backbone, dict(type='stmixer_mm.ChannelProjection3D', in_channels=channels)
