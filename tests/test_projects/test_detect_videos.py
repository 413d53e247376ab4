import json
import os
import shutil

import av
import numpy as np
import pytest
import torch
from detections import without_nulls
from run_tool import named, run_and_fail, run_tool
from tiny_stmixer import tool_environment, write_model, write_video

from stmixer_mm.apis.inferencer import ActionDetInferencer
from stmixer_mm.projects.many_videos.many_videos import TRACK_FORMATS, track_file
from stmixer_mm.records import to_plain

NAMES = ('a/x', 'b/x', 'b/y')


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Config, checkpoint and a list of three videos, two of one name."""
    folder = tmp_path_factory.mktemp('project')
    write_model(folder)
    for name, width in zip(NAMES, (64, 96, 80), strict=True):
        write_video(folder / f'{name}.mp4', frames=20, size=(width, 48))
    (folder / 'videos.txt').write_text(''.join(f'{name}.mp4\n' for name in NAMES))
    return folder


@pytest.fixture(scope='module')
def expected(project):
    model = project / 'tiny.py', project / 'tiny.pth', 'cpu'
    everyone = {'model.head.score_thr': 0.0}
    inferencer = ActionDetInferencer(*model, cfg_options=everyone)
    videos = [str(project / f'{name}.mp4') for name in NAMES]
    return {video: to_plain(inferencer.detect(video)) for video in videos}


def detect(project, out, *options, videos='videos.txt'):
    model = named((project / 'tiny.py', project / 'tiny.pth'))
    args = (project / videos, *model, '--no-video', '--out', out, *options)
    run_tool('detect', *args, '--cfg-options', 'model.head.score_thr=0.0')


def results(out):
    """By video, without what tells one version of it, or of the model, from another."""
    contents = [json.loads(path.read_text()) for path in out.glob('*.json')]
    names = 'num_bytes', 'mtime', 'made_with'
    versions = [[content.pop(name) for name in names] for content in contents]
    assert all(map(all, versions))
    return {content['video']: content for content in contents}


def test_results_are_those_of_the_inferencer(project, expected, tmp_path):
    detect(project, tmp_path / 'one')
    assert results(tmp_path / 'one') == expected
    for number in range(2):
        detect(project, tmp_path / 'two', '--shard', f'{number}/2')
        assert len(results(tmp_path / 'two')) == [2, 3][number]
    assert results(tmp_path / 'two') == expected


def test_a_bad_video_is_one_line_and_finished_ones_are_skipped(
    project, tmp_path, capsys
):
    good, bad, missing = (tmp_path / f'{name}.mp4' for name in ('good', 'bad', 'none'))
    shutil.copy(project / 'a' / 'x.mp4', good)
    bad.write_text('no video')
    videos, out = tmp_path / 'list.txt', tmp_path / 'out'
    videos.write_text(f'{bad}\n{missing}\n\n{good}\n{good}\n')
    with pytest.raises(SystemExit) as leave:
        detect(project, out, videos=videos)
    assert leave.value.code == 1
    printed = capsys.readouterr().err
    assert f'{bad}: failed' in printed and f'{missing}: failed' in printed
    assert ': 2 of 3' in printed
    (file,) = out.glob('*.json')
    when = file.stat().st_mtime_ns
    for path in bad, missing:
        shutil.copy(project / 'b' / 'x.mp4', path)
    detect(project, out, videos=videos)
    assert file.stat().st_mtime_ns == when
    assert len(results(out)) == 3


@pytest.mark.parametrize('form', TRACK_FORMATS)
def test_tracks_for_annotators_are_those_that_the_inferencer_saves(
    project, tmp_path, form
):
    """A file that is missing is written again; one of another program stays."""
    out, video = tmp_path / 'out', project / 'a' / 'x.mp4'
    stranger = track_file(out / 'x.json', form)
    stranger.parent.mkdir(parents=True)
    stranger.write_text('of others')
    detect(project, out, '--format', form, videos=video)
    (path,) = {*stranger.parent.iterdir()} - {stranger}
    assert stranger.read_text() == 'of others'
    model = project / 'tiny.py', project / 'tiny.pth', 'cpu'
    inferencer = ActionDetInferencer(*model, cfg_options={'model.head.score_thr': 0.0})
    inferencer.detect(str(video)).save(tmp_path / 'expected', form)
    expected = (tmp_path / 'expected').read_bytes()
    assert path.read_bytes() == expected
    path.unlink()
    detect(project, out, '--format', form, videos=video)
    assert path.read_bytes() == expected


@pytest.mark.parametrize('options', [('json',), ('parquet',), ('cvat', '--ray')])
def test_a_format_without_its_ray_is_refused(project, tmp_path, capsys, options):
    out = '--out', tmp_path / 'out'
    line = run_and_fail(capsys, 'detect', project / 'a', *out, '--format', *options)
    assert f'--format {options[0]}' in line and '--ray' in line


DAMAGES = dict(
    empty=lambda content: None,
    fps=lambda content: content.pop('fps'),
    ids=lambda content: content['keyframes'][0]['persons'][0].pop('id'),
    box=lambda content: content['keyframes'][0]['persons'][0]['bbox'].pop(),
    text=lambda content: content.update(keyframes='all'),
)


def test_changed_videos_and_damaged_results_are_done_anew(
    project, expected, tmp_path, capsys
):
    """Files of other programs stay, whatever their names."""
    videos, out = tmp_path / 'list.txt', tmp_path / 'out'
    names = 'changed', 'same', 'report', 'settings', *DAMAGES
    videos.write_text(''.join(f'{name}.mp4\n' for name in names))
    for name in names:
        shutil.copy(project / 'a' / 'x.mp4', tmp_path / f'{name}.mp4')
    out.mkdir()
    (out / 'report.json').write_text('{"of": "others"}')
    os.mkfifo(out / 'settings.json')
    detect(project, out, videos=videos)
    old = tmp_path / 'changed.mp4'
    shutil.copy(project / 'b' / 'x.mp4', old)
    os.utime(old, (1, 1))  # older than its result
    for name, change in DAMAGES.items():
        file = out / f'{name}.json'
        content = json.loads(file.read_text())
        change(content)
        text = json.dumps(content, indent=2)
        file.write_text('' if name == 'empty' else text)
    when = (out / 'same.json').stat().st_mtime_ns
    capsys.readouterr()
    detect(project, out, videos=videos)
    err = capsys.readouterr().err
    assert all(err.count(f'{name}.json is damaged') == 1 for name in DAMAGES)
    assert (out / 'same.json').stat().st_mtime_ns == when
    assert (out / 'report.json').read_text() == '{"of": "others"}'
    assert (out / 'settings.json').is_fifo()
    (out / 'report.json').unlink()
    (out / 'settings.json').unlink()
    first, other, _ = (expected[str(project / f'{name}.mp4')] for name in NAMES)
    found = results(out)
    assert len(found) == len(names)
    for path, result in found.items():
        assert result == (other if path == str(old) else first) | dict(video=path)


def test_results_of_another_model_or_options_are_redone_if_asked_for(
    project, tmp_path, capsys
):
    videos, out = sorted((project / 'b').glob('*.mp4')), tmp_path / 'out'
    state = torch.load(project / 'tiny.pth')
    torch.save({key: value / 2 for key, value in state.items()}, tmp_path / 'half.pth')
    shutil.copy(tmp_path / 'half.pth', tmp_path / 'same.pth')

    def written():
        return {file: file.read_bytes() for file in out.glob('[!.]*')}

    tiny, table = project / 'tiny.py', ('--out', out, '--device', 'cpu', '--no-video')
    first = [*videos, '--model', tiny, '--weights', project / 'tiny.pth', *table]
    run_tool('detect', *first)
    original = written()
    for change in ['--score-thr', 0.01], ['--weights', tmp_path / 'half.pth']:
        line = run_and_fail(capsys, 'detect', *first, *change)
        assert '2 of 2' in line and '--overwrite' in line and str(out) in line
        assert written() == original
    run_tool('detect', *first, *change, '--overwrite')
    replaced = written()
    assert all(replaced[file] != original[file] for file in out.glob('*.json'))
    capsys.readouterr()
    # A copy is the same model; batches change nothing; and drawn videos are missing.
    same = ['--weights', tmp_path / 'same.pth', '--batch-size', 2]
    run_tool('detect', *first, *same)
    assert 'finished before: 2' in capsys.readouterr().out
    run_tool('detect', *first[:-1], *same)
    assert 'videos to do: 2' in capsys.readouterr().out
    assert len([*out.glob('*.mp4')]) == 2


def test_an_interrupted_run_leaves_whole_files(
    project, expected, tmp_path, monkeypatch
):
    replace = os.replace

    def interrupted(part, path):
        if any(tmp_path.glob('[!.]*.json')):
            raise KeyboardInterrupt
        replace(part, path)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as leave:
        patch.setattr(os, 'replace', interrupted)
        detect(project, tmp_path)
    assert leave.value.code == 130
    assert len([*tmp_path.glob('.part-*')]) == 0
    assert len(results(tmp_path)) == 1
    detect(project, tmp_path)
    assert results(tmp_path) == expected


@pytest.mark.parametrize('form', ['json', 'parquet'])
def test_ray_writes_the_same_rows(project, expected, tmp_path, monkeypatch, form):
    pytest.importorskip('ray.data')
    parquet = pytest.importorskip('pyarrow.parquet')
    monkeypatch.setenv('PYTHONPATH', tool_environment()['PYTHONPATH'])
    detect(project, tmp_path, '--ray', 'local', '--format', form)
    if form == 'parquet':
        rows = parquet.read_table(tmp_path).to_pylist()
    else:
        lines = [path.read_text().splitlines() for path in tmp_path.iterdir()]
        rows = [json.loads(line) for part in lines for line in part]
    assert {row['video']: without_nulls(row) for row in rows} == expected


def test_damage_is_left_out_and_told(tiny_model, tmp_path, capsys):
    video = tmp_path / 'bad.mkv'
    times = np.arange(60) / 10
    with av.open(video, 'w') as target:
        options = {'g': '20', 'bf': '0', 'sc_threshold': '0'}
        stream = target.add_stream('h264', rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, 'yuv420p'
        sound = target.add_stream('aac', rate=16000)
        for index in range(60):
            picture = np.full((240, 320, 3), 4 * index, np.uint8)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        noise = np.zeros((1, 96000), np.float32)
        sound_frame = av.AudioFrame.from_ndarray(noise, format='fltp', layout='mono')
        sound_frame.sample_rate = 16000
        target.mux([*stream.encode(None), *sound.encode(sound_frame)])
        target.mux(sound.encode(None))
    with av.open(video) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        start, size = packets[30].pos, packets[30].size
    data = video.read_bytes()
    video.write_bytes(data[: start + 8] + bytes(size - 8) + data[start + size :])
    out = tmp_path / 'out'
    args = (video, *named(tiny_model), '--out', out, '--interval-s', 0.5)
    message = run_and_fail(capsys, 'detect', *args)
    assert f'{video}: damaged, done in part' in message
    record = json.loads((out / 'bad.json').read_text())
    assert record['damage'] == [[3, 4]]
    times_s = [keyframe['time_s'] for keyframe in record['keyframes']]
    assert times_s == [0, 0.5, 1, 1.5, 2, 2.5, 4.5, 5, 5.5]
    with av.open(out / 'bad.mp4') as container:
        codecs = [track.codec_context.name for track in container.streams]
        assert codecs == ['h264', 'aac']
        shown = [float(frame.time) for frame in container.decode(video=0)]
        np.testing.assert_allclose(shown, np.delete(times, range(30, 40)), atol=1e-3)
