"""The box that queries start from."""

import torch

from stmixer_mm.models.boxes import xyzr_to_xyxy
from stmixer_mm.models.decoder.initial_boxes import FrameShapes, WholeFrameBoxes


def test_each_query_starts_from_its_frame_without_padding():
    frames = FrameShapes(torch.tensor([[64, 96], [50, 70]]), (64, 96))
    boxes_xyzr = WholeFrameBoxes(num_queries=6, embed_dims=16).predict([], frames)
    expected = torch.tensor([[0.0, 0, 96, 64], [0, 0, 70, 50]])[:, None].expand(2, 6, 4)
    assert boxes_xyzr.dtype == torch.float32
    torch.testing.assert_close(xyzr_to_xyxy(boxes_xyzr), expected, rtol=1e-5, atol=1e-3)
