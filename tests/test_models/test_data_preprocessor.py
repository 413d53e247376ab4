import torch
from tiny import data_sample

from stmixer_mm.models.data_preprocessor import ClipDataPreprocessor


def preprocess(*clips, **settings):
    preprocessor = ClipDataPreprocessor(
        **{'mean': [10.0, 20.0, 30.0], 'std': [2.0, 4.0, 5.0], **settings}
    )
    samples = [data_sample(img_shape=tuple(clip.shape[-2:])) for clip in clips]
    return preprocessor(dict(inputs=list(clips), data_samples=samples))


def clip_of(value, height=40, width=70, frames=2):
    return torch.full((3, frames, height, width), value, dtype=torch.uint8)


def test_normalises_then_pads_with_zeros():
    data = preprocess(clip_of(50), clip_of(100, height=33, width=20))
    assert data['inputs'].shape == (2, 3, 2, 64, 96)
    assert data['inputs'][0, :, 0, 0, 0].tolist() == [20, 7.5, 4]
    assert not data['inputs'][0, :, :, 40:].any()
    assert not data['inputs'][0, :, :, :, 70:].any()
    assert not data['inputs'][1, :, :, 33:].any()
    first, second = data['data_samples']
    assert (first.img_shape, second.img_shape) == ((40, 70), (33, 20))
    assert first.pad_shape == second.pad_shape == (64, 96)


def test_a_clip_axis_of_one_is_dropped():
    with_axis, without = preprocess(clip_of(7)[None]), preprocess(clip_of(7))
    torch.testing.assert_close(with_axis['inputs'], without['inputs'])


def test_channels_last_changes_nothing_but_the_layout():
    usual, ours = (
        preprocess(clip_of(50), channels_last=last)['inputs'] for last in (False, True)
    )
    assert torch.equal(ours, usual)
    layout = torch.channels_last_3d
    assert ours.is_contiguous(memory_format=layout)
    assert not usual.is_contiguous(memory_format=layout)
