"""Laws of the whole detector."""

import warnings

import pytest
import torch
from mmengine.config import Config
from tiny import (
    MODELS_FOLDER,
    batch,
    build_detector,
    data_sample,
    tiny_decoder,
    tiny_deformable_decoder,
    tiny_detector,
    tiny_head,
)

from stmixer_mm.errors import UserError, blame
from stmixer_mm.models.decoder.initial_boxes import FrameShapes
from stmixer_mm.models.decoder.stage import StageOutput
from stmixer_mm.projects.masks.mask_head import MaskQueries
from stmixer_mm.registry import MODELS

TWO = data_sample([(5, 5, 40, 60), (50, 10, 90, 50)], [(1,), (2, 3)])
NONE = data_sample(name='empty,0001')


def losses_of(model, *samples):
    data = model.data_preprocessor(batch(*samples), training=True)
    return model(**data, mode='loss')


def total(losses):
    return sum(losses.values())


def test_tensor_mode_returns_one_record_per_stage():
    model = build_detector()
    data = model.data_preprocessor(batch(TWO, NONE))
    outputs = model(**data, mode='tensor')
    assert len(outputs) == 2
    for output in outputs:
        assert isinstance(output, StageOutput)
        assert output.person_logits.shape == (2, 5, 2)
        assert output.action_logits.shape == (2, 5, 3)
        assert output.bboxes.shape == (2, 5, 4)


def test_first_stage_starts_from_the_true_frame():
    model = build_detector()
    boxes = model.initial_boxes.predict(
        [torch.zeros(1)], FrameShapes(torch.tensor([[64, 96]]), (64, 96))
    )
    queries, boxes = model.decoder.start(boxes)
    assert boxes[0, 0].tolist()[:2] == [48, 32]
    assert queries.spatial.mean(dim=-1).abs().max() < 1e-6


def test_a_batch_is_its_clips_one_by_one():
    model = build_detector().eval()
    samples = [TWO, data_sample([(0, 0, 20, 30)], [(1,)], img_shape=(64, 96))]
    together = model.data_preprocessor(batch(*samples))
    with torch.no_grad():
        outputs = model(**together, mode='tensor')
        for clip, sample in enumerate(samples):
            alone = model(together['inputs'][clip : clip + 1], [sample], mode='tensor')
            for output, single in zip(outputs, alone, strict=True):
                for ours, expected in zip(output, single, strict=True):
                    torch.testing.assert_close(
                        ours[clip : clip + 1], expected, rtol=1e-4, atol=1e-4
                    )


def test_clips_of_different_sizes_share_a_batch():
    model = build_detector()
    small = data_sample([(0, 0, 20, 30)], [(1,)], img_shape=(40, 70))
    losses = losses_of(model, TWO, small)
    assert all(loss.isfinite() for loss in losses.values())
    predictions = model.eval().test_step(batch(TWO, small))
    for sample in predictions:
        bboxes = sample.pred_instances.bboxes
        assert ((bboxes >= 0) & (bboxes < 1)).all()


@pytest.mark.parametrize(
    'samples',
    [(TWO, NONE), (NONE, NONE), (TWO,), (NONE,)],
    ids=['one empty clip', 'no box at all', 'one clip', 'one empty clip alone'],
)
@pytest.mark.parametrize('dtype', [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    'sizes',
    [{}, dict(num_queries=1), dict(num_points=3), dict(sampling_backend='mmcv')],
    ids=['plain', 'one query', 'three points', 'mmcv'],
)
def test_losses_are_finite_and_reach_every_parameter(samples, dtype, sizes):
    model = build_detector(tiny_detector({**tiny_decoder(), **sizes})).train()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with torch.autocast('cpu', dtype=dtype or torch.bfloat16, enabled=bool(dtype)):
            losses = losses_of(model, *samples)
        total(losses).backward()
    assert len(losses) == 2 * 4
    for name, loss in losses.items():
        assert loss.isfinite() and loss.dtype == torch.float32, name
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_one_frame():
    model = build_detector(tiny_detector({**tiny_decoder(), 'num_frames': 1}))
    data = model.data_preprocessor(batch(TWO), training=True)
    data['inputs'] = data['inputs'][:, :, :1]
    total(model(**data, mode='loss')).backward()


def test_the_dummy_class_is_put_back():
    (sample,) = build_detector().eval().test_step(batch(TWO))
    predictions = sample.pred_instances
    assert predictions.scores.shape == (len(predictions), 4)
    assert not predictions.scores[:, 0].any()


@pytest.mark.parametrize(
    'decoder, message',
    [
        (dict(embed_dims=32), r'\(1, 16, 2, .* embed_dims=32; set .*embed_dims=16'),
        (dict(strides=(4, 8, 16)), r'strides=\(4, 8, 16\) but the 4 levels'),
        (dict(strides=(4, 8, 16, 16)), r'16\.0, 32\.0\]; correct the strides'),
    ],
)
def test_a_decoder_that_does_not_fit_the_maps(decoder, message):
    with pytest.raises(ValueError, match=message):
        losses_of(build_detector(tiny_detector({**tiny_decoder(), **decoder})), TWO)


@pytest.mark.parametrize(
    'decoder, message',
    [
        (dict(embed_dims=20), '20 is not a multiple of 8'),
        (dict(num_heads=3), '16 is not a multiple of 3, which num_heads'),
        (dict(num_groups=5), '16 is not a multiple of 5, which num_groups'),
        (dict(num_classes=1), 'leaves no action'),
        (dict(num_classes=7), 'decoder has num_classes=7 but the head has'),
        (dict(num_queries=0), 'The decoder has num_queries=0; set'),
        (dict(num_stages=0), 'The decoder has num_stages=0; set'),
    ],
)
def test_sizes_that_do_not_fit_together(decoder, message):
    with pytest.raises(ValueError, match=message):
        build_detector(tiny_detector({**tiny_decoder(), **decoder}))


def test_a_wrong_argument_name_fails():
    with pytest.raises(TypeError, match='num_query'):
        build_detector(tiny_detector({**tiny_decoder(), 'num_query': 5}))


def test_boxes_are_not_detached_between_stages():
    model = build_detector()
    data = model.data_preprocessor(batch(TWO))
    last = model(**data, mode='tensor')[-1]
    last.bboxes.sum().backward()
    first_stage = model.decoder.stages[0]
    assert first_stage.box_branch[-1].weight.grad.abs().sum() > 0


def test_the_head_says_the_number_of_classes():
    config = tiny_detector(dict(tiny_decoder()))
    del config['decoder']['num_classes']
    config['head']['num_classes'] = 7
    model = build_detector({**config, 'denoising': dict(type='DenoisingQueries')})
    assert model.num_classes == model.decoder.num_classes == 7
    assert model.denoising.num_classes == 7
    with pytest.raises(UserError, match=r"'video,0001' have 4 columns .*=7; set .*=4"):
        losses_of(model, TWO)


@pytest.mark.parametrize(
    'parts, message',
    [
        (
            dict(head=dict(type='mmdet.FocalLoss')),
            "FocalLoss.* attribute 'num_classes'",
        ),
        (dict(decoder=tiny_detector()['neck']), "unexpected .* argument 'num_classes'"),
    ],
)
def test_parts_of_another_type(parts, message):
    with pytest.raises(UserError, match=message), blame('The config', 'correct it'):
        MODELS.build({**tiny_detector(), **parts})


def test_initial_stages_leave_boxes_and_actions_alone():
    model = build_detector()
    model.decoder.stages[0]._is_init = False
    model.decoder.stages[0].init_weights()
    stage = model.decoder.stages[0]
    assert not stage.box_branch[-1].weight.any()
    offsets = stage.offsets.bias.view(2, 4, 3)
    assert offsets[..., :2].abs().max() <= 0.5 and not offsets[..., 2].any()
    assert not stage.offsets.weight.any()
    prior = stage.action_branch[-1].bias.sigmoid()
    torch.testing.assert_close(prior, torch.full((3,), 0.01))
    assert ((stage.iof_tau >= 0) & (stage.iof_tau <= 4)).all()


@pytest.mark.parametrize('num_points', [4, 9, 5])
def test_initial_points_lie_within_the_box(num_points):
    from stmixer_mm.models.decoder.stage import spread_offsets

    offsets = spread_offsets(3, num_points).view(3, num_points, 3)
    assert offsets[..., :2].abs().max() <= 0.5
    # A regular grid has its mean in the middle; so have random points, about.
    assert offsets[..., :2].mean().abs() < 0.2


def test_nan_names_the_sample():
    model = build_detector().eval()
    data = batch(TWO, data_sample([(1, 1, 9, 9)], [(1,)], name='broken,0007'))
    data['inputs'][1] = torch.full((3, 2, 64, 96), float('nan'))
    data = model.data_preprocessor(data, training=True)
    sentence = "bboxes of stage 0 of 'broken,0007' is NaN or infinite; check"
    with pytest.raises(UserError, match=sentence):
        model(**data, mode='loss')


def test_detector_initialises_all_parts_and_loads_a_recogniser(tmp_path):
    """``init_cfg`` fills the backbone and leaves the decoder initialised."""
    pretrained = {
        f'backbone.{name}': torch.full_like(value, 0.25)
        for name, value in build_detector().backbone.state_dict().items()
    }
    torch.save(dict(state_dict=pretrained), tmp_path / 'recogniser.pth')
    config = tiny_detector()
    config['init_cfg'] = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'recogniser.pth')
    )
    model = MODELS.build(config)
    model.init_weights()
    assert (model.backbone.layer1[0].conv1.conv.weight == 0.25).all()
    assert not model.decoder.stages[1].box_branch[-1].weight.any()


@pytest.mark.parametrize('kind', ['persons', 'deformable', 'tubelets'])
def test_query_vectors_come_with_their_persons_and_change_nothing(kind):
    decoder, head = tiny_decoder(), tiny_head()
    if kind == 'deformable':
        decoder = tiny_deformable_decoder(num_points=2)
    if kind == 'tubelets':
        settings = Config.fromfile(MODELS_FOLDER / 'tubelets.py')
        decoder |= settings.tubelet_decoder.to_dict()
        head |= settings.tubelet_head.to_dict()
    model = build_detector(tiny_detector(decoder, head)).eval()
    model.head.score_thr, stages = 0.0, []
    model.decoder.stages[-1].register_forward_hook(
        lambda stage, args, result: stages.append(result[0].spatial)
    )
    one = data_sample(img_shape=(64, 96))
    one.set_metainfo(dict(clip_len=2))

    def predict():
        found = model.test_step(batch(one))[0].pred_instances.clone()
        return found, found.get('tubelet_scores', found.person_scores)

    model.head.score_thr = predict()[1].median().item()
    plain, scores = predict()
    assert 'query_vectors' not in plain
    model.with_query_vectors = True
    found, _ = predict()
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    everybody = stages[-1].mean(dim=0)  # over the frames of tubelets
    rows = torch.cdist(found.query_vectors, everybody).argmin(dim=1)
    assert (rows.diff() > 0).all()
    assert len(rows) == len(scores) < len(everybody)
    torch.testing.assert_close(found.query_vectors, everybody[rows])


class Raw(torch.nn.Module):
    """Clips of 64x96 in, the last stage and, with a mask head, all masks out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        model, (clips, *_) = self.model, inputs.shape
        frames = FrameShapes(inputs.new_tensor([[64, 96]]).expand(clips, 2), (64, 96))
        feats, (outputs, queries, _) = model.run(inputs, frames)
        if model.mask_head is None:
            return tuple(outputs[-1])
        looks, bboxes = model.decoder.look_of(queries), outputs[-1].bboxes
        of_clips = torch.arange(clips).repeat_interleave(looks.size(1))
        found = MaskQueries(looks.flatten(0, 1), bboxes.flatten(0, 1), of_clips)
        return *outputs[-1], model.mask_head(feats, found, frames)


NECK = tiny_detector()['neck']
FORECAST = dict(type='WarpForecast', in_channels=[16] * 4, num_ahead=1, clip_len=2)
MASK_LOSSES = dict(
    loss_mask=dict(type='mmdet.FocalLoss', use_sigmoid=True),
    loss_dice=dict(type='mmdet.DiceLoss'),
)


DECODER = tiny_decoder(sampling_backend='grid_sample')


@pytest.mark.parametrize(
    'parts',
    [
        {},
        dict(decoder=tiny_deformable_decoder()),
        dict(initial_boxes=dict(type='GridBoxes')),
        dict(neck=[NECK, FORECAST], decoder=DECODER | dict(num_frames=3)),
        dict(mask_head=dict(type='QueryMaskHead', **MASK_LOSSES)),
    ],
    ids=['STMixer', 'deformable', 'GridBoxes', 'WarpForecast', 'QueryMaskHead'],
)
def test_what_is_exported_takes_any_number_of_clips(parts):
    model = Raw(build_detector(tiny_detector(DECODER) | parts).eval())
    clips = torch.randn(5, 3, 2, 64, 96)
    any_number = ({0: torch.export.Dim('clips', min=1, max=8)},)
    with torch.no_grad():
        exported = torch.export.export(
            model, (clips[:2],), dynamic_shapes=any_number, strict=False
        )
        for number in 1, 2, 5:
            results = exported.module()(clips[:number]), model(clips[:number])
            torch.testing.assert_close(*results, atol=1e-3, rtol=1e-4)
