import pytest
import torch
from torch.testing import assert_close

from stmixer_mm.models import boxes


def test_decoding_undoes_encoding():
    corners = torch.rand(3, 7, 2) * 100
    bboxes = torch.cat((corners, corners + torch.rand(3, 7, 2) * 200 + 1), dim=-1)
    assert_close(
        boxes.xyzr_to_xyxy(boxes.xyxy_to_xyzr(bboxes)), bboxes, rtol=1e-5, atol=1e-3
    )


def test_literal_box():
    # 64 wide and 16 high around (50, 20): scale 32 = 2^5, h / w = 2^-2
    xyzr = torch.tensor([50.0, 20.0, 5.0, -2.0])
    assert boxes.box_size(xyzr).tolist() == [64, 16]
    assert boxes.xyzr_to_xyxy(xyzr).tolist() == [18, 12, 82, 28]


def test_refinement_moves_by_the_old_scale():
    xyzr = torch.tensor([50.0, 20.0, 5.0, -2.0])
    deltas = torch.tensor([0.5, -0.25, 1.0, 2.0])
    assert boxes.refine_boxes(xyzr, deltas).tolist() == [66, 12, 6, 0]
    assert boxes.refine_boxes(xyzr, torch.zeros(4)).tolist() == xyzr.tolist()


def test_iof_of_literal_boxes():
    bboxes = torch.tensor([[[0, 0, 10, 10], [5, 0, 25, 10], [90, 90, 99, 99]]]).float()
    expected = torch.tensor([[[1, 0.5, 0], [0.25, 1, 0], [0, 0, 1]]])
    assert_close(boxes.intersection_over_foreground(bboxes), expected)


def test_position_code_of_a_literal_box():
    xyzr = torch.tensor([500.0, 0.0, 2.0, 0.0])
    codes = boxes.sine_position_code(xyzr, boxes.position_wavelengths(16)).view(4, 2, 2)
    frequencies = torch.tensor([1.0, 100.0])  # 10000^(0 / 4), 10000^(2 / 4)
    for code, value in zip(codes, (0.5, 0.0, 2.0, 0.0), strict=True):
        assert_close(code[:, 0], (value / frequencies).sin())
        assert_close(code[:, 1], (value / frequencies).cos())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_sizes_are_exact_in_half_precision(dtype):
    xyzr = torch.tensor([50.0, 20.0, 7.0, 1.0]).to(dtype)
    with torch.autocast('cpu', dtype=dtype):
        assert boxes.box_size(xyzr).dtype == torch.float32
        assert boxes.xyzr_to_xyxy(xyzr).dtype == torch.float32
