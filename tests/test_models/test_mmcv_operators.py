"""The operators that stand in for compiled ones of mmcv, and that they are put there."""

import subprocess
import sys

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from torch.testing import assert_close

from stmixer_mm.mmcv_operators import nms, roi_align_backward, roi_align_forward

UNFIT = """
import importlib.machinery as machinery, importlib.util as util
find = machinery.PathFinder.find_spec
def find_spec(cls, name, *args):
    if name == 'mmcv._ext':
        return util.spec_from_file_location(name, 'of_another_torch.so')
    return find(name, *args)
machinery.PathFinder.find_spec = classmethod(find_spec)
import stmixer_mm, mmcv.ops, mmdet.models, mmaction.models, torch
from mmcv.ops import DeformConv2d, RoIAlign, nms
boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [5, 5, 6, 6]])
print(mmcv.ops.get_compiler_version(), len(nms(boxes, torch.ones(3), 0.5)[1]))
try:
    DeformConv2d(1, 1, 1)(torch.rand(1, 1, 4, 4), torch.rand(1, 2, 4, 4))
except stmixer_mm.errors.UserError as error:
    print(error)
"""


def options(samples=0, aligned=True, size=(3, 5)):
    sizes = dict(aligned_height=size[0], aligned_width=size[1], spatial_scale=0.5)
    return sizes | dict(sampling_ratio=samples, pool_mode=1, aligned=aligned)


def align(feats, rois, samples=0, aligned=True, size=(3, 5)):
    output = feats.new_zeros(len(rois), feats.shape[1], *size)
    settings = options(samples, aligned, size)
    roi_align_forward(feats, rois, output, None, None, **settings)
    return output


def random_rois(count):
    corners = torch.rand(count, 2, 2) * torch.tensor([60.0, 30.0]) - 5
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    return torch.cat([torch.randint(2, (count, 1)), boxes], 1)


def test_nms_keeps_what_overlaps_no_better_box():
    boxes, scores = random_rois(60)[:, 1:].round(), torch.rand(60)
    iou = bbox_overlaps(boxes, boxes)
    survivors = []
    for index in scores.argsort(descending=True).tolist():
        if not (iou[index, survivors] > 0.3).any():
            survivors.append(index)
    assert 10 < len(survivors) < 50
    assert nms(boxes, scores, iou_threshold=0.3, offset=0).tolist() == survivors
    assert nms(boxes[:0], scores[:0], iou_threshold=0.3, offset=0).tolist() == []


@pytest.mark.parametrize('samples', [0, 2])
def test_roi_align_of_a_ramp_is_the_ramp_at_the_centres_of_bins(samples):
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(30.0), indexing='ij')
    ramp = (2 * x + 3 * y)[None, None]
    means = align(ramp, torch.tensor([[0.0, 8, 4, 48, 22]]), samples)
    x = (8 + 40 * (torch.arange(5) + 0.5) / 5) / 2 - 0.5
    y = (4 + 18 * (torch.arange(3) + 0.5) / 3) / 2 - 0.5
    assert_close(means[0, 0], 2 * x + 3 * y[:, None])


def test_roi_align_gives_the_numbers_of_compiled_mmcv():
    feats = torch.arange(2 * 12 * 20).float().view(2, 1, 12, 20).sin()
    rois = torch.tensor([[0, -7, -9, 10, 50], [1, 36, 20, 90, 23.5], [1, 5, 5, 5, 5]])
    for aligned, expected in (
        (True, [0.000453, 0.014850, 0.062883, 0.0, 0.0, 0.0]),
        (False, [0.004813, 0.006123, 0.091088, 0.0, 0.838963, 0.907526]),
    ):
        means = align(feats, rois, 0, aligned, size=(1, 2)).flatten()
        assert_close(means, torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize('aligned', [True, False])
def test_the_gradient_of_roi_align_is_its_transpose(aligned):
    feats, rois = torch.randn(2, 3, 12, 20), random_rois(20)
    output = align(feats, rois, aligned=aligned)
    grad, grad_feats = torch.randn_like(output), torch.zeros_like(feats)
    settings = options(aligned=aligned)
    roi_align_backward(grad, rois, None, None, grad_feats, **settings)
    assert_close((output * grad).sum(), (feats * grad_feats).sum())


def test_the_hosts_run_where_compiled_operators_do_not_load():
    done = subprocess.run([sys.executable, '-c', UNFIT], capture_output=True, text=True)
    assert 'of_another_torch.so: ' in done.stderr
    # onedl-mmdetection says in lines of its own that operators are missing.
    *_, first, second = done.stdout.splitlines()
    assert first.startswith('none (nms') and first.endswith(') 2')
    assert 'deform_conv_forward' in second
