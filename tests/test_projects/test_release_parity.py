"""The whole detector against the released one, number for number."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import made_up_checkpoint, made_up_input, reference
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny import data_sample, whole_frames

from stmixer_mm.projects.release.names import convert_state_dict, released_name
from stmixer_mm.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs' / 'stmixer'
CASES = {  # config and frames of a clip
    'slowonly_r50': ('slowonly-r50_8xb2-4x16x1-12e', 4),
    'slowfast_r50': ('slowfast-r50_8xb2-8x8x1-12e', 32),
    'slowfast_r101_nl': ('slowfast-r101-nl_8xb2-8x8x1-12e', 32),
    'videomae_vit_b': ('vit-b-videomae_8xb1-16x4x1-12e', 16),
}
IMG_SHAPES = [(128, 160), (112, 144)]
TRUTH = [  # boxes and actions (from 1: 0 is the dummy class) of each clip
    ([(20, 30, 80, 120), (70, 10, 150, 90)], [(4, 12), (80,)]),
    ([(5, 6, 60, 100)], [(1, 17, 74)]),
]
RELEASED_TERMS = dict(
    loss_person='loss_ce',
    loss_bbox='loss_bbox',
    loss_iou='loss_giou',
    loss_action='loss_bce',
)


def make_data_samples():
    clips = zip(IMG_SHAPES, TRUTH, strict=True)
    return [data_sample(*truth, shape, num_classes=81) for shape, truth in clips]


@cache
def clips(case):
    return made_up_input('clip', (2, 3, CASES[case][1], 128, 160))


@pytest.fixture(scope='module', params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope='module')
def model(case):
    name = f'stmixer_{CASES[case][0]}_ava22-rgb.py'
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(Config.fromfile(CONFIGS / name).model)
    state_dict, _ = convert_state_dict(made_up_checkpoint(case))
    model.load_state_dict(state_dict)
    model.eval()
    return model


@pytest.fixture(scope='module')
def maps(case, model):
    with torch.no_grad():
        feats = model.backbone(clips(case))
        return feats, model.neck(feats)


def relative_error(ours, expected):
    expected = torch.from_numpy(expected)
    return ((ours - expected).abs().max() / expected.abs().max()).item()


def test_maps(case, maps):
    expected = reference(case)
    backbone, neck = maps
    backbone = [backbone] if torch.is_tensor(backbone) else backbone
    for level, feat in enumerate(backbone):
        ours = feat[:, ::32, :, ::2, ::2]
        assert relative_error(ours, expected[f'backbone{level}']) < 1e-4
    for level, (feat, step) in enumerate(zip(neck, (4, 2, 1, 1), strict=True)):
        ours = feat[:, ::32, :, ::step, ::step]
        assert relative_error(ours, expected[f'neck{level}']) < 1e-4


def test_stage_outputs(case, model, maps, monkeypatch):
    expected = reference(case)
    further_backends = ('grid_sample', 'grid_means') if case == 'slowonly_r50' else ()
    for backend in ('embedding_bag', *further_backends):
        monkeypatch.setattr(model.decoder, 'sampling_backend', backend)
        with torch.no_grad():
            boxes_xyzr = whole_frames(model.decoder, IMG_SHAPES)
            outputs = model.decoder(maps[1], boxes_xyzr, pad_shape=(128, 160)).stages
        ours = {
            'cls_logits': torch.stack([output.person_logits for output in outputs]),
            'boxes': torch.stack([output.bboxes for output in outputs]),
            'action_logits': outputs[-1].action_logits,
            'action_logits_stage0': outputs[0].action_logits,
        }
        for name, values in ours.items():
            tolerance = 0.01 if name == 'boxes' else 5e-4
            np.testing.assert_allclose(values, expected[name], rtol=0, atol=tolerance)


def test_predictions(case, model):
    expected = reference(case)
    with torch.no_grad():
        samples = model(clips(case), make_data_samples(), mode='predict')
    for clip, sample in enumerate(samples):
        ours = sample.pred_instances
        assert not ours.scores[:, 0].any()  # the dummy class
        np.testing.assert_allclose(
            ours.scores[:, 1:], expected[f'pred_scores_{clip}'], atol=1e-4
        )
        np.testing.assert_allclose(
            ours.bboxes, expected[f'pred_boxes_{clip}'], atol=1e-4
        )


def test_losses_and_gradients(case, model):
    expected = reference(case)
    model.zero_grad()
    losses = model(clips(case), make_data_samples(), mode='loss')
    assert len(losses) == 24
    for name, value in losses.items():
        stage, _, term = name.rpartition('.')
        released = RELEASED_TERMS[term] + (f'_{stage[1:]}' if stage else '')
        assert value.item() == pytest.approx(expected[f'loss/{released}'], rel=2e-4)

    if case in ('slowonly_r50', 'videomae_vit_b'):
        sum(losses.values()).backward()
        gradients = reference(f'{case}_gradients')
        norms = {
            released_name(name): parameter.grad.norm().item()
            for name, parameter in model.named_parameters()
        }
        for name, norm in zip(gradients['names'], gradients['norms'], strict=True):
            if name != 'stm_head.decoder_stages.0.iof_tau':  # there all boxes coincide
                assert norms[name] == pytest.approx(norm, rel=1e-3, abs=1e-6), name
