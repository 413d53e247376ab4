import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from run_tool import run_and_fail, run_tool
from tiny import batch, build_detector, data_sample
from tiny_stmixer import write_project, write_video
from torch import nn

from stmixer_mm.apis.inference import init_detector
from stmixer_mm.engine.speed import STEPS
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.projects.profiling.clips import (
    ClipPipeline,
    extract_frames,
    video_clips,
)
from stmixer_mm.projects.profiling.flops import count_parts
from stmixer_mm.projects.profiling.meter import Meter, watch_children
from stmixer_mm.projects.profiling.models import read_config


@pytest.fixture
def run(tmp_path):
    """Run a tool in this process; returns what it writes to --json."""

    def run_analysis(name, *args):
        out = tmp_path / 'out.json'
        run_tool(f'analysis/{name}', *args, '--json', out)
        return json.loads(out.read_text())

    return run_analysis


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp('project'))


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp('video') / 'new.mp4', frames=30)


def counting_meter():
    """A meter of a number that grows by one whenever it is read."""
    numbers = iter(range(1000))
    return Meter(lambda: next(numbers))


def test_nested_parts_share_what_the_outer_one_gains():
    meter = counting_meter()
    with meter.part('outer'):
        with meter.part('inner'), meter.part('inner'):
            pass
        with meter.part('inner'):
            pass
    # Read at each of 4 entries and 4 exits: 7 steps between.
    assert meter.take() == {'outer': 3, 'inner': 4}
    assert meter.take() == {}


def test_a_part_ends_when_it_raises():
    meter = counting_meter()
    with pytest.raises(KeyError), meter.part('outer'), meter.part('inner'):
        raise KeyError
    with meter.part('next'):
        pass
    assert meter.take() == {'outer': 2, 'inner': 1, 'next': 1}


def test_parts_are_known_by_child_and_method():
    class Head(nn.Module):
        def loss(self, value):
            return value + 1

        def predict(self, value):
            return value + 2

    model = nn.Module()
    model.neck, model.head = nn.Identity(), Head()
    meter = counting_meter()
    watch_children(meter, model, names={'head.loss': 'losses'}, prefix='a ')
    assert (model.neck(1), model.head.loss(1), model.head.predict(1)) == (1, 2, 3)
    assert list(meter.take()) == ['a neck', 'a losses', 'a head']


def test_products_of_a_decoder_are_those_counted_by_hand():
    queries, dims, groups, points, frames = 5, 16, 2, 4, 2
    hidden, actions, stages, levels = 32, 3, 2, (16 * 24, 8 * 12, 4 * 6, 2 * 3)
    group_dims = dims // groups

    def branch(rows):
        attention = 4 * dims * dims + 2 * queries * dims
        generated = group_dims**2 + 4 * rows * rows
        mixing = groups * (
            dims * generated
            + rows * group_dims**2
            + 4 * rows * rows * group_dims
            + 4 * rows * group_dims * dims
        )
        return attention + mixing + 2 * dims * hidden

    products = branch(points) + branch(frames) + dims * groups * points * 3
    products += 2 * dims * dims + dims * (2 + 4)
    products += 2 * dims * 2 * dims + 2 * dims * actions

    model = build_detector().eval()
    data = model.data_preprocessor(batch(data_sample()))
    rows = {row.part: row for row in count_parts(model, data)}
    parts = ['backbone', 'neck', 'decoder', 'initial_boxes', 'head', 'total']
    assert list(rows) == parts
    assert rows['decoder'].flops == 2 * queries * stages * products
    channels = (4, 8, 16, 32)
    assert rows['neck'].flops == 2 * dims * frames * sum(
        width * cells for width, cells in zip(channels, levels, strict=True)
    )
    assert rows['head'][1:] == (0, 0, 0)
    parts = [row[1:] for name, row in rows.items() if name != 'total']
    assert tuple(map(sum, zip(*parts, strict=True))) == rows['total'][1:]


def test_frozen_and_loose_parameters_are_counted_apart():
    model = build_detector().eval()
    model.loose = nn.Parameter(torch.zeros(3))
    model.neck.requires_grad_(False)
    data = model.data_preprocessor(batch(data_sample()))
    rows = {row.part: row for row in count_parts(model, data)}
    assert rows['neck'].parameters > 0 == rows['neck'].trainable
    assert rows['other'][1:] == (0, 3, 3)
    trained = rows['total'].parameters - rows['neck'].parameters
    assert rows['total'].trainable == trained


def test_flops_of_a_config(run, config, capsys):
    figures = run('get_flops', config)
    assert figures['clip'] == [2, 32, 64]  # 32x40 of 4:5, padded
    assert [row['part'] for row in figures['rows']][-2:] == ['head', 'total']
    assert 'embedding_bag' in capsys.readouterr().out
    larger = run('get_flops', config, '--shape', 2, 64, 128)
    assert larger['clip'] == [2, 64, 128]
    for part, factor in (('backbone', 4), ('neck', 4), ('decoder', 1)):
        small, large = (
            next(row['flops'] for row in each['rows'] if row['part'] == part)
            for each in (figures, larger)
        )
        assert large == factor * small, part


def host_config(tmp_path, name, package, base, text):
    folder = find_spec(package).submodule_search_locations[0]
    base = Path(folder, '.mim', 'configs', base)
    path = tmp_path / f'{name}.py'
    path.write_text(f'_base_ = {str(base)!r}\n{text}')
    return path


@pytest.fixture(scope='module')
def recogniser(tmp_path_factory):
    """A small variant of MMAction2's SlowOnly with a RoI head."""
    return host_config(
        tmp_path_factory.mktemp('recogniser'),
        'recogniser',
        'mmaction',
        'detection/slowonly/'
        'slowonly_kinetics400-pretrained-r50_8xb16-4x16x1-20e_ava21-rgb.py',
        """
model = dict(
    backbone=dict(depth=18, base_channels=4),
    roi_head=dict(bbox_head=dict(in_channels=32)),
)
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='SampleAVAFrames', clip_len=2, frame_interval=2, test_mode=True),
    dict(type='RawFrameDecode'),
    dict(type='Resize', scale=(-1, 32)),
    dict(type='FormatShape', input_format='NCTHW', collapse=True),
    dict(type='PackActionInputs'),
]))
train_dataloader = test_dataloader
""",
    )


def test_flops_of_a_host_model(run, recogniser):
    figures = run('get_flops', recogniser, '--persons', 2)
    flops = {row['part']: row['flops'] for row in figures['rows']}
    assert list(flops) == ['backbone', 'roi_head', 'total']
    assert flops['roi_head'] == 2 * 2 * 32 * 81  # two persons, one linear layer


@pytest.mark.parametrize('source', ['dataset', 'video'])
def test_time_of_detection(run, config, video, source, capsys):
    options = ['--video', video] if source == 'video' else []
    figures = run('throughput', config, '--clips', 2, *options)
    assert figures['clips_per_second'] > 0
    parts = figures['parts']
    assert list(parts) == [
        *('opening', 'decoding', 'augmentation', 'collation', 'preprocessing'),
        *('backbone', 'neck', 'initial_boxes', 'decoder'),
        *('post-processing', 'other', 'total'),
    ]
    assert min(parts.values()) >= 0
    assert 'clips per second, end to end' in capsys.readouterr().out


def test_time_of_training(run, config, video):
    options = ('--mode', 'train', '--clips', 2, '--video', video, '--workers', 1)
    figures = run('throughput', config, *options)
    assert figures['batch_size'] == 2
    parts = set(figures['parts'])
    assert {'decoder', 'losses', 'assignment', 'backward', 'optimiser'} <= parts
    assert 'waiting' in parts and 'collation' not in parts


def test_time_of_each_step_of_speed_up(run, config, video, capsys):
    options = ('--mode', 'speed-up', '--clips', 1, '--video', video)
    figures = run('throughput', config, *options)
    for kind in ('seconds', 'cpu_seconds'):
        assert list(figures[kind]) == ['as built', *(f'+ {step}' for step in STEPS)]
        assert min(figures[kind].values()) > 0
    assert 'ratio' in capsys.readouterr().out


@pytest.mark.parametrize('mode', ['test', 'train'])
def test_time_of_a_host_model(run, recogniser, video, mode):
    options = ('--mode', mode, '--clips', 1, '--batch-size', 1, '--video', video)
    parts = run('throughput', recogniser, *options)['parts']
    assert {'backbone', 'roi_head'} <= set(parts)


def test_time_of_loading(run, config, capsys):
    figures = run('throughput', config, '--mode', 'data', '--clips', 2)
    rows = {row['source']: row for row in figures['rows']}
    assert list(rows) == ['as configured', 'video files', 'extracted frames']
    assert rows['extracted frames']['clips_per_second_per_core'] > 0
    assert figures['frames_used'] == 2
    assert figures['frames_decoded'] >= 2
    assert 'frames used' in capsys.readouterr().out


def test_extracted_frames_are_those_of_the_video(config, video, tmp_path):
    cfg = read_config(config)
    infos = video_clips(video, 3, persons=2, num_classes=3)
    pipeline = ClipPipeline(cfg, 'test', source='video')
    extracted = extract_frames(infos, pipeline, tmp_path / 'frames')
    from_frames = ClipPipeline(cfg, 'test', source='frames')
    for info, frames in zip(infos, extracted, strict=True):
        ours, theirs = pipeline(info), from_frames(frames)
        difference = ours['inputs'].float() - theirs['inputs'].float()
        assert difference.abs().mean() < 8  # JPEG of noise
        ours, theirs = (each['data_samples'].gt_instances for each in (ours, theirs))
        torch.testing.assert_close(ours.bboxes, theirs.bboxes)


def test_what_a_box_in_every_frame_costs(run, config, video, capsys):
    tubelets = config.with_name('tubelets.py')
    text = config.read_text().replace('stmixer_tiny.py', 'stmixer-t_tiny.py')
    tubelets.write_text(text)
    figures = run(
        'tube_cost', config, tubelets, '--video', video, '--frames', 8, '--turns', 1
    )
    ways = 'every frame a keyframe', 'every 4th frame a keyframe', 'tubelets'
    assert tuple(figures['ways']) == ways
    for way, found in figures['ways'].items():
        assert found['seconds'] > 0 and found['peak_mb'] >= 0, way
    assert ways[-1] in capsys.readouterr().out


def test_the_two_stage_peer(run, config, recogniser, video, tmp_path, capsys):
    detector = host_config(
        tmp_path,
        'detector',
        'mmdet',
        'faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
        """
model = dict(
    backbone=dict(depth=18),
    neck=dict(in_channels=[64, 128, 256, 512]),
    test_cfg=dict(rpn=dict(nms_pre=10, max_per_img=7)),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('ori_shape', 'img_shape', 'scale_factor')),
]
""",
    )
    figures = run(
        'two_stage_peer',
        config,
        *('--video', video, '--detector', detector, '--recogniser', recogniser),
        *('--turns', 1, '--persons', 2),
    )
    one, two = figures['seconds']['one stage'], figures['seconds']['two stages']
    assert {'decoder', 'backbone', 'total'} <= set(one)
    assert {'roi_head', 'persons: rpn_head', 'persons: roi_head'} <= set(two)
    assert 0 < figures['proposals'] <= 7
    for column in (one, two):
        total = column.pop('total')
        assert total == pytest.approx(sum(column.values()))
    assert 'times as long' in capsys.readouterr().out


def test_columns_of_a_table_are_aligned():
    table = format_table([('part', 'seconds'), ('a long name', 1), ('b', 23)])
    assert table.splitlines() == [
        'part         seconds',
        '--------------------',
        'a long name        1',
        'b                 23',
    ]


@pytest.fixture
def of_tracks(config, tmp_path):
    """Arguments of a tool: two persons, of whom one is not seen twice."""
    rows = []
    for time in (0, 0.5, 1, 1.5):
        rows.append(f'0.mp4,{time},0.1,0.1,0.4,0.9,1,7')
        rows += [f'0.mp4,{time},0.5,0.1,0.9,0.9,1,3'] * (time in (0, 1.5))
    (tmp_path / 'tracks.csv').write_text('\n'.join(rows) + '\n')
    torch.save(init_detector(config, None).state_dict(), tmp_path / 'tiny.pth')
    return tmp_path / 'tracks.csv', config.parent, config, tmp_path / 'tiny.pth'


def test_identities_are_scored(run, of_tracks):
    pytest.importorskip('trackeval')
    found = run('identities', *of_tracks, '--rates', 1, 2, '--trackers', 'query')
    lines = {
        (one['rate'], one['boxes'], one['tracker']): one for one in found['figures']
    }
    kinds = [('annotated', 'query'), ('found', 'query'), ('found', 'the truth')]
    assert [*lines] == [(rate, *kind) for rate in (1, 2) for kind in kinds]
    for rate in (1, 2):
        ours = lines[rate, 'annotated', 'query']
        assert [ours[name] for name in ('IDF1', 'HOTA', 'MOTA')] == [1, 1, 1]
        assert ours['switches'] == ours['alone'] == 0


def test_without_trackeval_identities_say_what_to_install(
    of_tracks, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, 'trackeval.metrics', None)
    told = run_and_fail(capsys, 'analysis/identities', *of_tracks)
    assert 'pip install --no-deps trackeval tabulate' in told
