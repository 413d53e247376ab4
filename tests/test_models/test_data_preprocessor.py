import torch
from tiny import data_sample

from stmixer_mm.models.data_preprocessor import ClipDataPreprocessor


def preprocess(*clips, **settings):
    moments = dict(mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 5.0])
    preprocessor = ClipDataPreprocessor(**moments, **settings)
    samples = [data_sample(img_shape=tuple(clip.shape[-2:])) for clip in clips]
    return preprocessor(dict(inputs=list(clips), data_samples=samples))


def clip_of(value, height=40, width=70):
    return torch.full((3, 2, height, width), value, dtype=torch.uint8)


def test_normalises_then_pads_with_zeros():
    data = preprocess(clip_of(50), clip_of(100, height=33, width=20))
    expected = torch.zeros(2, 3, 2, 64, 96)
    expected[0, ..., :40, :70] = torch.tensor([20, 7.5, 4])[:, None, None, None]
    expected[1, ..., :33, :20] = torch.tensor([45, 20, 14.0])[:, None, None, None]
    assert torch.equal(data['inputs'], expected)
    assert {sample.pad_shape for sample in data['data_samples']} == {(64, 96)}


def test_a_clip_axis_of_one_is_dropped():
    with_axis, without = preprocess(clip_of(7)[None]), preprocess(clip_of(7))
    torch.testing.assert_close(with_axis['inputs'], without['inputs'])


def test_channels_last_changes_nothing_but_the_layout():
    ours = preprocess(clip_of(50), channels_last=True)['inputs']
    assert torch.equal(ours, preprocess(clip_of(50))['inputs'])
    assert ours.is_contiguous(memory_format=torch.channels_last_3d)
