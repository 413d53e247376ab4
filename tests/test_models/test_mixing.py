import json

import numpy as np
import torch
from made_up import REFERENCE, made_up_input, made_up_weight, reference

from stmixer_mm.models import decoder


def make_mixing():
    mixing = decoder.AdaptiveMixing(
        query_dims=48, in_channels=64, num_groups=4, in_points=32, out_points=128
    )
    shapes = json.loads((REFERENCE / 'adaptive_mixing.json').read_text())
    renamed = {
        name.replace('parameter_generator.0', 'weight_generator'): made_up_weight(
            name, tuple(shape)
        )
        for name, shape in shapes.items()
    }
    mixing.load_state_dict(renamed)
    return mixing


def test_released_numbers():
    samples = made_up_input('mix_x', (2, 5, 4, 32, 16))
    queries = made_up_input('mix_q', (2, 5, 48))
    with torch.no_grad():
        mixed = make_mixing()(samples, queries)
    expected = reference('adaptive_mixing')['output']
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-4)


def test_queries_mix_alone():
    mixing = make_mixing()
    samples = made_up_input('mix_x', (2, 5, 4, 32, 16))
    queries = made_up_input('mix_q', (2, 5, 48))
    with torch.no_grad():
        together = mixing(samples, queries)
        alone = mixing(samples[1:, 2:3], queries[1:, 2:3])
    torch.testing.assert_close(together[1:, 2:3], alone, rtol=1e-4, atol=1e-5)


def test_initial_mixing_is_the_same_for_all_queries():
    mixing = make_mixing()
    mixing.init_weights()
    samples = torch.randn(1, 1, 4, 32, 16).expand(1, 3, -1, -1, -1)
    queries = torch.randn(1, 3, 48)
    added = mixing(samples, queries) - queries
    torch.testing.assert_close(added[:, :1].expand_as(added), added)
