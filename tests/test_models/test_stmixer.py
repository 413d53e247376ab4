"""Laws of the whole detector."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from test_sampling import BACKENDS
from tiny import (
    assert_all_learn,
    batch,
    build_detector,
    count_operators,
    data_sample,
    losses_of,
    nobody,
    tiny_decoder,
    tiny_detector,
    two,
)
from tiny_tubelets import ALWAYS, LEAVES, SOFTMAX, SPARSE, tube_detector, tube_sample
from torch.testing import assert_close

from stmixer_mm.errors import UserError
from stmixer_mm.models import precision
from stmixer_mm.models.decoder.sampling.backends import SAMPLING_BACKENDS
from stmixer_mm.projects.denoising import DenoisingQueries
from stmixer_mm.registry import MODELS

TWO, NONE = two(), nobody()


def test_a_batch_is_its_clips_one_by_one():
    model = build_detector().eval()
    samples = [TWO, data_sample([(0, 0, 20, 30)], [(1,)], img_shape=(64, 96))]
    together = model.data_preprocessor(batch(*samples))
    with torch.no_grad():
        outputs = model(**together, mode='tensor')
        for clip, sample in enumerate(samples):
            alone = model(together['inputs'][clip : clip + 1], [sample], mode='tensor')
            for output, expected in zip(outputs, alone, strict=True):
                ours = tuple(values[clip : clip + 1] for values in output)
                assert_close(ours, tuple(expected), rtol=1e-4, atol=1e-4)


ONE_OF_ALL = tiny_detector(tiny_decoder(num_queries=1, num_points=3, num_frames=1))
ONE_OF_ALL['neck']['num_frames'] = 1
TUBELETS = tube_sample(ALWAYS, SPARSE, actions=((1,), (2,))), tube_sample()


@pytest.mark.parametrize('first', [0, 1], ids=['one empty clip', 'nobody'])
@pytest.mark.parametrize('dtype', [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    'config, samples',
    [
        (tiny_detector(), (TWO, NONE)),
        (ONE_OF_ALL, (TWO, NONE)),
        (tube_detector(), TUBELETS),
        (tube_detector(SOFTMAX), TUBELETS),
    ],
    ids=['plain', 'one', 'tubelets', 'label'],
)
def test_losses_are_finite_and_reach_every_parameter(config, samples, dtype, first):
    model = build_detector(config).train()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with torch.autocast('cpu', dtype=dtype or torch.bfloat16, enabled=bool(dtype)):
            losses = losses_of(model, *samples[first:])
        sum(losses.values()).backward()
    assert len(losses) == 2 * 4
    for name, loss in losses.items():
        assert loss.isfinite() and loss.dtype == torch.float32, name
    assert_all_learn(model)


def test_nan_names_the_sample():
    model = build_detector().eval()
    data = batch(TWO, data_sample([(1, 1, 9, 9)], [(1,)], name='broken,0007'))
    data['inputs'][1] = torch.full((3, 2, 64, 96), float('nan'))
    data = model.data_preprocessor(data, training=True)
    with pytest.raises(UserError, match="bboxes of stage 0 of 'broken,0007' is NaN"):
        model(**data, mode='loss')


def test_detector_initialises_all_parts_and_loads_a_recogniser(tmp_path):
    """``init_cfg`` fills the backbone and leaves the decoder initialised."""
    weights = build_detector().backbone.state_dict(prefix='backbone.')
    quarters = {name: torch.full_like(value, 0.25) for name, value in weights.items()}
    checkpoint = str(tmp_path / 'recogniser.pth')
    torch.save(dict(state_dict=quarters), checkpoint)
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    model = MODELS.build(tiny_detector() | dict(init_cfg=init_cfg))
    model.init_weights()
    assert (model.backbone.layer1[0].conv1.conv.weight == 0.25).all()
    assert not model.decoder.stages[1].box_branch[-1].weight.any()


def test_query_vectors_come_with_their_persons_and_change_nothing():
    model, stages = build_detector().eval(), []
    model.decoder.stages[-1].register_forward_hook(
        lambda stage, args, result: stages.append(result[0].spatial)
    )

    def predict():
        return model.test_step(batch(data_sample()))[0].pred_instances.clone()

    model.head.score_thr = 0.0
    model.head.score_thr = predict().person_scores.median().item()
    plain, model.with_query_vectors = predict(), True
    instances = predict()
    assert {*instances.keys()} - {*plain.keys()} == {'query_vectors'}
    for name, value in plain.items():
        assert_close(instances[name], value, rtol=0, atol=0)
    rows = torch.cdist(instances.query_vectors, stages[-1][0]).argmin(dim=1)
    assert (rows.diff() > 0).all() and 0 < len(rows) < 5
    assert_close(instances.query_vectors, stages[-1][0, rows])


@MODELS.register_module()
class WatchedQueries(DenoisingQueries):
    """Further queries, which note what their part is told."""

    def __init__(self, *, prefix, **sizes):
        super().__init__(**sizes)
        self.prefix, self.calls = prefix, []

    def enter_training(self, batch):
        return super().enter_training(batch)._replace(prefix=self.prefix)

    def loss(self, batch, outputs, persons):
        self.calls.append((outputs.boxes_xyzr.size(1), persons.tolist()))
        return {f'loss_{self.prefix}watched': outputs.queries.spatial.sum() * 0}


def test_parts_add_queries_whose_persons_are_known():
    part = dict(type='WatchedQueries')
    parts = dict(noised=dict(part, prefix='dn.'), doubled=dict(part, prefix='twice.'))
    model = build_detector(tiny_detector() | parts | dict(other=None))
    losses = losses_of(model, TWO, NONE)
    expected = {'loss_dn.watched', 'loss_twice.watched', 'd0.dn.loss_iou'}
    assert expected | {'d0.twice.loss_iou'} <= {*losses}
    # Each part is told of the decoder's own queries alone.
    assert model.noised.calls == model.doubled.calls
    ((count, (of_two, of_none)),) = model.noised.calls
    assert count == 5 and sorted(of_two) == [0, 0, 0, 1, 2] and of_none == [0] * 5
    # No query attends to hidden ones: the decoder's own say what they say alone.
    plain = build_detector()
    plain.load_state_dict(model.state_dict(), strict=False)
    assert_close(losses['loss_person'], losses_of(plain, TWO, NONE)['loss_person'])


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('tubelets', [False, True])
def test_no_tensor_of_the_host_takes_part(tubelets, backend, monkeypatch):
    """Of the device 'meta', which computes nothing; tensors of the CPU end in errors."""
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())
    monkeypatch.setattr(precision, 'autocast_dtype', lambda _: None)
    monkeypatch.setattr(SAMPLING_BACKENDS[backend], 'is_available', lambda _: True)
    decoder = dict(sampling_backend=backend)
    plain = tiny_detector(tiny_decoder(**decoder))
    model = build_detector(tube_detector(**decoder) if tubelets else plain).to('meta')
    clips = torch.zeros(2, 3, 4 if tubelets else 2, 64, 96, device='meta')
    for stage in model(clips, [TWO, NONE], mode='tensor'):
        assert {values.device.type for values in stage} == {'meta'}


@pytest.mark.parametrize('tubelets', [False, True])
def test_a_step_has_as_many_operators_for_any_number_of_clips(tubelets):
    model = build_detector(tube_detector() if tubelets else None)
    clip = tube_sample(ALWAYS, LEAVES) if tubelets else TWO
    counts = count_operators(model, clip, clip)
    assert counts['waits'] == 1  # for one sentence on values that are not finite
    assert counts == count_operators(model, *[clip] * 6)


@pytest.mark.parametrize('tubelets', [False, True])
def test_a_forward_pass_is_one_graph(tubelets):
    model = build_detector(tube_detector() if tubelets else None).eval()
    clips = torch.rand(2, 3, 4 if tubelets else 2, 64, 96)
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    with torch.no_grad():
        outputs = compiled(clips, [TWO, NONE], mode='tensor')
        expected = model(clips, [TWO, NONE], mode='tensor')
    outputs, expected = [*map(tuple, outputs)], [*map(tuple, expected)]
    assert_close(outputs, expected, rtol=1e-5, atol=1e-4)
