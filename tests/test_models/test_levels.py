"""Strides derived from the sizes of maps."""

import pytest
import torch

from stmixer_mm.models.strides import derive_strides
from stmixer_mm.projects.common.feats import fits_stride


def maps(*sizes):
    return [torch.empty(1, 1, 1, *size) for size in sizes]


@pytest.mark.parametrize('stride', [4, 16, 64, 128])
@pytest.mark.parametrize('pad_shape', [(256, 320), (224, 416), (352, 640)])
def test_powers_of_two_where_sides_are_no_multiples(stride, pad_shape):
    size = [-(-pixels // stride) for pixels in pad_shape]
    (derived,) = derive_strides(maps(size), pad_shape)
    exact = {pixels / cells for pixels, cells in zip(pad_shape, size, strict=True)}
    assert derived == stride or len(exact) == 1


@pytest.mark.parametrize('stride', [3, 6, 24, 64, 100])
def test_a_derived_stride_gives_the_cells_that_there_are(stride):
    pad_shape = (250, 333)
    for margin in (0, stride - 1):
        size = [(pixels + margin) // stride for pixels in pad_shape]
        (derived,) = derive_strides(maps(size), pad_shape)
        assert fits_stride(size, pad_shape, derived)


def test_any_number_of_levels_multiples_and_a_pooling_without_padding():
    assert derive_strides(maps((6, 10), (84, 140)), (84, 140)) == (14, 1)
    assert derive_strides(maps((15, 23)), (64, 96)) == (4,)
    feats = maps((52, 52), (26, 26), (13, 13), (7, 7), (4, 4))
    assert derive_strides(feats, (416, 416))[:3] == (8, 16, 32)
    assert derive_strides(feats[:1], (416, 416)) == (8,)


def test_sides_that_contradict_each_other():
    with pytest.raises(ValueError, match=r'8 pixels .* but 2'):
        derive_strides(maps((16, 16), (8, 32)), (64, 64))
