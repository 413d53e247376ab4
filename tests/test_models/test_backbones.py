import pytest
import torch
from mmengine.config import Config

from stmixer_mm.checks.config import building
from stmixer_mm.models import (
    CheckpointedVisionTransformer,
    NonLocalBlock3D,
    ResNet3dSlowFastPyramid,
)
from stmixer_mm.registry import MODELS


@pytest.fixture(scope='module')
def slowfast():
    model = ResNet3dSlowFastPyramid(depth=50, non_local_blocks=(1, 4), fusion_kernel=5)
    model.init_weights()
    return model.eval()


def test_slowfast_yields_four_fused_levels(slowfast):
    with torch.no_grad():
        feats = slowfast(torch.randn(1, 3, 8, 64, 96))
    assert [tuple(feat.shape) for feat in feats] == [
        (1, 288, 2, 16, 24),
        (1, 576, 2, 8, 12),
        (1, 1152, 2, 4, 6),
        (1, 2304, 2, 2, 3),
    ]


@pytest.mark.parametrize(
    'frames, expected',
    [(32, [0, 4, 8, 13, 17, 22, 26, 31]), (8, [0, 7]), (4, [0])],
)
def test_slow_frames_run_from_the_first_to_the_last(slowfast, frames, expected):
    clips = torch.arange(frames).float().view(1, 1, frames, 1, 1)
    assert slowfast.slow_frames(clips).flatten().tolist() == expected


def test_clips_of_a_length_that_does_not_divide(slowfast):
    with pytest.raises(ValueError, match='10 frames, which is not a multiple of'):
        slowfast(torch.zeros(1, 3, 10, 32, 32))


def test_non_local_blocks_follow_the_named_blocks(slowfast):
    found = [
        name
        for name, module in slowfast.named_modules()
        if isinstance(module, NonLocalBlock3D)
    ]
    assert found == [f'slow_path.layer3.{block}.non_local_block' for block in (1, 4)]


def test_a_block_that_res4_lacks():
    config = dict(type='ResNet3dSlowFastPyramid', depth=50, non_local_blocks=(6,))
    sentence = r'built \(ResNet3dSlowFastPyramid: index 6 is out of range\); correct it'
    with (
        torch.device('meta'),
        pytest.raises(ValueError, match=sentence),
        building(Config()),
    ):
        MODELS.build(config)


def test_deeper_nets_inflate_the_first_six_blocks_of_res4():
    with torch.device('meta'):
        model = ResNet3dSlowFastPyramid(depth=101)
    for pathway in (model.slow_path, model.fast_path):
        kernels = [block.conv1.conv.kernel_size[0] for block in pathway.layer3]
        assert kernels == [3] * 6 + [1] * 17


def test_norm_eval_reaches_both_pathways():
    with torch.device('meta'):
        model = ResNet3dSlowFastPyramid(norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert norms and not any(norm.training for norm in norms)


def test_non_local_block_starts_as_identity():
    block = NonLocalBlock3D(8)
    block.init_weights()
    feat = torch.randn(2, 8, 2, 4, 6)
    torch.testing.assert_close(block(feat), feat)
    torch.nn.init.ones_(block.bn.weight)
    assert not torch.allclose(block(feat), feat)


def make_vit(**settings):
    torch.manual_seed(0)
    sizes = dict(img_size=32, embed_dims=16, depth=2, num_heads=2, num_frames=4)
    return CheckpointedVisionTransformer(
        **sizes, return_feat_map=True, use_mean_pooling=False, **settings
    )


def test_checkpointing_changes_nothing_but_memory():
    clip = torch.randn(1, 3, 4, 48, 32)
    gradients = []
    for with_cp in (True, False):
        model = make_vit(with_cp=with_cp).train()
        feat = model(clip)
        assert feat.shape == (1, 16, 2, 3, 2)
        feat.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)


def test_a_wrong_argument_of_the_transformer():
    with pytest.raises(
        ValueError, match="no argument 'embed_dim'; did you mean embed_dims"
    ):
        CheckpointedVisionTransformer(embed_dim=16)
