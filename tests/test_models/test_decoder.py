"""The decoder as a whole: against the literal formulation, and its ways to run."""

import pytest
import torch
from kept_bytes import bytes_kept_for_backward
from tiny import tiny_decoder
from tiny_decoder import (
    TUBELETS,
    assert_all_close,
    each_kind,
    made_up_feats,
    make_decoder,
    run,
)

from stmixer_mm.apis.config import check_part
from stmixer_mm.errors import UserError
from stmixer_mm.models import STMixerDecoder
from stmixer_mm.models.decoder.sampling.backends import SAMPLING_BACKENDS

LITERAL = dict(sampling_backend='grid_sample', mixing_backend='literal')


def make_twins(ours, theirs, **settings):
    """Two decoders with the same weights."""
    twins = make_decoder(**settings, **ours), make_decoder(**settings, **theirs)
    twins[1].load_state_dict(twins[0].state_dict())
    return twins


def gradients(decoder, outputs, feats):
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (values * torch.randn(values.shape, generator=generator)).sum()
        for values in outputs
    )
    return torch.autograd.grad(loss, [*decoder.parameters(), *feats])


def assert_same_outputs_and_gradients(decoder, twin, feats, size=(70, 100)):
    outputs, expected = run(decoder, feats, size), run(twin, feats, size)
    assert_all_close(outputs, expected, 1e-5)
    ours = gradients(decoder, outputs, feats)
    assert_all_close(ours, gradients(twin, expected, feats), 1e-4)


def test_a_back_end_of_ones_own_is_a_row(monkeypatch):
    with pytest.raises(UserError, match="'nearest' is unknown; use one of 'auto', "):
        make_decoder(sampling_backend='nearest')
    monkeypatch.setitem(SAMPLING_BACKENDS, 'nearest', SAMPLING_BACKENDS['grid_sample'])
    check_part(STMixerDecoder, tiny_decoder(sampling_backend='nearest'))
    decoder = make_decoder(sampling_backend='nearest')
    run(decoder, made_up_feats(decoder))


@pytest.mark.parametrize(
    'sizes',
    [{}, dict(num_frames=1, num_points=7, num_groups=4, num_queries=1), TUBELETS],
    ids=['plain', 'other sizes', 'tubelets'],
)
@pytest.mark.parametrize('backend', ['embedding_bag', 'grid_means'])
def test_equals_the_literal_formulation(backend, sizes):
    decoder, literal = make_twins(dict(sampling_backend=backend), LITERAL, **sizes)
    assert_same_outputs_and_gradients(decoder, literal, made_up_feats(decoder))


def bytes_kept(decoder, feats):
    inputs = [*decoder.parameters(), *feats]
    return bytes_kept_for_backward(lambda: run(decoder, feats), inputs)


@each_kind
def test_checkpointed_stages_keep_less_for_the_same_gradients(kind):
    decoder = make_decoder(num_stages=4, **kind)
    feats = made_up_feats(decoder)
    num_bytes = bytes_kept(decoder, feats)
    expected = gradients(decoder, run(decoder, feats), feats)
    decoder.with_cp = True
    assert bytes_kept(decoder, feats) < num_bytes / 3
    assert_all_close(gradients(decoder, run(decoder, feats), feats), expected, 1e-5)


def test_nothing_is_kept_of_every_point_in_every_frame():
    sizes = dict(embed_dims=128, num_frames=16, num_points=32, num_queries=20)
    decoder, literal = make_twins({}, LITERAL, **sizes, out_multiplier=1)
    feats = made_up_feats(decoder)
    a_sample_each = 4 * 2 * 20 * 32 * 16 * decoder.embed_dims  # B Q P T C
    num_bytes = bytes_kept(literal, feats)
    assert num_bytes > 2 * 4 * a_sample_each  # stages, levels
    assert bytes_kept(decoder, feats) < num_bytes / 4


@each_kind
def test_stages_compile_without_graph_breaks(kind):
    options = dict(fullgraph=True, backend='aot_eager')
    sizes = dict(num_stages=1, num_frames=1, num_queries=2) | kind
    decoder, eager = make_twins(dict(compile_stages=options), {}, **sizes)
    feats = made_up_feats(decoder, batch=1, size=(32, 32))
    assert_same_outputs_and_gradients(decoder, eager, feats, (32, 32))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('mixing', ['literal', 'chunks'])
@each_kind
def test_autocast_changes_little(kind, mixing, dtype):
    decoder = make_decoder(mixing_backend=mixing, **kind)
    feats = made_up_feats(decoder)
    with torch.no_grad():
        expected = run(decoder, feats)
        with torch.autocast('cpu', dtype=dtype):
            outputs = run(decoder, feats)
    for person_logits, action_logits, bboxes in zip(*[iter(outputs)] * 3, strict=True):
        assert bboxes.dtype == torch.float32
        assert person_logits.isfinite().all() and action_logits.isfinite().all()
    assert_all_close([out.float() for out in outputs], expected, 0.05)
