import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from run_tool import ROOT, run_and_fail, run_tool
from tiny_stmixer import tool_environment, write_model, write_video

from stmixer_mm.apis.inferencer import ActionDetInferencer

EVERYONE = ('--cfg-options', 'model.head.score_thr=0.0')
# Ends its process at the video 'poison', and once at any other.
KILLER = """
import os
import signal
from stmixer_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Killer:
    def __init__(self, flag):
        self.flag = flag

    def __call__(self, sample):
        if os.path.exists(self.flag):
            os.remove(self.flag)
        elif 'poison' not in sample['filename']:
            return sample
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Config, checkpoint and a list of three videos, two of one name."""
    folder = tmp_path_factory.mktemp('project')
    write_model(folder)
    for name, width in (('a/x', 64), ('b/x', 96), ('b/y', 80)):
        write_video(folder / f'{name}.mp4', frames=20, size=(width, 48))
    (folder / 'videos.txt').write_text('a/x.mp4\nb/x.mp4\nb/y.mp4\n')
    return folder


def arguments(project, out, videos=None):
    model = (project / 'tiny.py', project / 'tiny.pth')
    return (videos or project / 'videos.txt', *model, '--out', out)


def detect(project, out, *options, videos=None):
    run_tool('detect_videos', *arguments(project, out, videos), *options, *EVERYONE)


def results(out):
    return sorted(path.read_bytes() for path in (out / 'detections').iterdir())


def report(out):
    return json.loads((out / 'report.json').read_text())


def test_results_are_those_of_the_inferencer(project, tmp_path, capsys):
    detect(project, tmp_path)
    inferencer = ActionDetInferencer(
        project / 'tiny.py',
        project / 'tiny.pth',
        'cpu',
        cfg_options={'model.head.score_thr': 0.0},
        show_progress=False,
    )
    videos = [str(project / f'{name}.mp4') for name in ('a/x', 'b/x', 'b/y')]
    expected = [
        json.dumps(inferencer.detect(video).to_dict()).encode() + b'\n'
        for video in videos
    ]
    assert results(tmp_path) == sorted(expected)
    printed = capsys.readouterr()
    assert '3 of 3 videos, 6 keyframes in' in printed.out
    assert '3/3' in printed.err  # the progress bar


def test_a_bad_video_costs_a_line_and_what_is_finished_is_not_done_again(
    project, tmp_path, capsys
):
    names = ('good', 'bad', 'missing')
    good, bad, missing = (tmp_path / f'{name}.mp4' for name in names)
    shutil.copy(project / 'a' / 'x.mp4', good)
    bad.write_text('no video')
    videos = tmp_path / 'list.txt'
    videos.write_text(f'{bad}\n{missing}\n\n{good}\n{good}\n')
    out = tmp_path / 'out'
    line = run_and_fail(
        capsys, 'detect_videos', *arguments(project, out, videos), *EVERYONE
    )
    assert f'Of 3 videos 2 failed; {out}/report.json names them' in line
    failed = report(out).pop('failed')
    assert [one['video'] for one in failed] == [str(bad), str(missing)]
    assert 'does not exist' in failed[1]['error']
    (file,) = (out / 'detections').iterdir()
    when = file.stat().st_mtime_ns

    for path in (bad, missing):
        shutil.copy(project / 'b' / 'x.mp4', path)
    detect(project, out, videos=videos)
    assert file.stat().st_mtime_ns == when
    assert len(results(out)) == 3
    assert report(out)['finished_before'] == 1
    assert report(out)['failed'] == []


def test_an_interrupted_run_leaves_nothing_half(project, tmp_path, monkeypatch, capsys):
    detect(project, tmp_path / 'whole')
    out, replace = tmp_path / 'out', os.replace

    def interrupted(part, path):
        if path.suffix == '.jsonl' and any(path.parent.glob('[!.]*')):
            raise KeyboardInterrupt
        replace(part, path)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as leave:
        patch.setattr(os, 'replace', interrupted)
        detect(project, out)
    assert leave.value.code == 130
    assert 'interrupted' in capsys.readouterr().err
    (first,) = results(out)
    assert first in results(tmp_path / 'whole')
    assert report(out)['finished'] == 1
    detect(project, out)
    assert results(out) == results(tmp_path / 'whole')


def test_processes_share_the_videos(project, tmp_path, monkeypatch, capsys):
    detect(project, tmp_path / 'one')
    monkeypatch.setenv('SLURM_NTASKS', '2')
    for rank in ('0', '1'):
        monkeypatch.setenv('SLURM_PROCID', rank)
        detect(project, tmp_path / 'two')
    assert 'process 1 of 2: 1 videos to do' in capsys.readouterr().out
    assert results(tmp_path / 'two') == results(tmp_path / 'one')
    monkeypatch.setenv('SLURM_PROCID', '2')
    line = run_and_fail(capsys, 'detect_videos', *arguments(project, tmp_path / 'two'))
    assert 'SLURM_PROCID=2 SLURM_NTASKS=2: there is no such process' in line


def test_torchrun_goes_on_when_a_process_had_a_bad_video(project, tmp_path):
    videos = tmp_path / 'list.txt'
    good = [project / f'{name}.mp4' for name in ('a/x', 'b/x', 'b/y')]
    lines = [f'none{number}.mp4\n{path}\n' for number, path in enumerate(good)]
    videos.write_text(''.join(lines))
    tool = (ROOT / 'tools' / 'detect_videos.py', *arguments(project, tmp_path, videos))
    launch = ('-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2')
    done = subprocess.run(
        [sys.executable, *launch, *tool, *EVERYONE],
        env=tool_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert 'process 1 of 2: 3 of 3 videos' in done.stdout
    assert len(results(tmp_path)) == 3


@pytest.mark.parametrize(
    ('options', 'what'),
    [
        (('--score-thr', '0.2'), 'pred_score_thr'),
        (('--label-map', '{tmp}/other.pbtxt'), 'classes'),
        (('--format', 'jsonl', '--person-thr', '0.5'), 'config'),
    ],
)
def test_results_of_other_settings_are_not_mixed(
    project, tmp_path, capsys, options, what
):
    (tmp_path / 'other.pbtxt').write_text(
        'item { name: "sit" id: 1 }\nitem { name: "run" id: 2 }\n'
    )
    run_tool('detect_videos', *arguments(project, tmp_path / 'out'))
    before = results(tmp_path / 'out')
    line = run_and_fail(
        capsys,
        'detect_videos',
        *arguments(project, tmp_path / 'out'),
        *(option.format(tmp=tmp_path) for option in options),
    )
    assert f'made with other settings ({what}: see settings.json' in line
    assert results(tmp_path / 'out') == before


def test_another_checkpoint_is_another_setting(project, tmp_path, capsys):
    detect(project, tmp_path / 'out')
    state = torch.load(project / 'tiny.pth')
    torch.save({key: value + 1 for key, value in state.items()}, tmp_path / 'b.pth')
    args = (project / 'videos.txt', project / 'tiny.py', tmp_path / 'b.pth')
    line = run_and_fail(
        capsys, 'detect_videos', *args, '--out', tmp_path / 'out', *EVERYONE
    )
    assert '(checkpoint: see' in line


def test_results_go_to_any_place_of_fsspec(project, tmp_path):
    import fsspec

    detect(project, tmp_path)
    detect(project, 'memory://many/run')
    files = fsspec.filesystem('memory')
    found = files.cat('/many/run/detections/*').values()
    assert sorted(found) == results(tmp_path)
    when = {
        path: files.modified(path) for path in files.ls('/many/run/detections', False)
    }
    detect(project, 'memory://many/run')
    assert when == {path: files.modified(path) for path in when}
    files.rm('/many', recursive=True)


def test_parquet_says_what_json_says(project, tmp_path):
    parquet = pytest.importorskip('pyarrow.parquet')
    detect(project, tmp_path / 'a')
    detect(project, tmp_path / 'b', '--format', 'parquet')

    def without_nulls(value):
        if isinstance(value, dict):
            return {k: without_nulls(v) for k, v in value.items() if v is not None}
        return [*map(without_nulls, value)] if isinstance(value, list) else value

    rows = without_nulls(parquet.read_table(tmp_path / 'b' / 'detections').to_pylist())
    lines = [json.loads(line) for line in results(tmp_path / 'a')]
    assert sorted(rows, key=str) == sorted(lines, key=str)
    assert any(keyframe['persons'] for row in rows for keyframe in row['keyframes'])


def test_ray_loses_nothing_when_workers_die(project, tmp_path, monkeypatch, capsys):
    pytest.importorskip('ray.data')
    detect(project, tmp_path / 'one')
    (tmp_path / 'killer.py').write_text(KILLER)
    flag = tmp_path / 'flag'
    flag.touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(
        'PYTHONPATH', os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    )
    config = tmp_path / 'child.py'
    config.write_text(
        f'_base_ = {str(project / "tiny.py")!r}\n'
        "custom_imports = dict(imports=['stmixer_mm', 'killer'])\n"
        'pipeline = [*_base_.test_dataloader.dataset.pipeline]\n'
        f'pipeline.insert(1, dict(type="Killer", flag={str(flag)!r}))\n'
        'test_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
    )
    poison = tmp_path / 'poison.mp4'
    shutil.copy(project / 'a' / 'x.mp4', poison)
    good = [project / f'{name}.mp4' for name in ('a/x', 'b/x', 'b/y')]
    videos = tmp_path / 'list.txt'
    videos.write_text('\n'.join(map(str, [poison, *good])))
    out = tmp_path / 'two'
    line = run_and_fail(
        capsys,
        'detect_videos',
        *(videos, config, project / 'tiny.pth', '--out', out),
        *('--ray', 'local', '--workers', '2', *EVERYONE),
    )
    assert 'Of 4 videos 1 failed' in line
    (failed,) = report(out)['failed']
    assert failed['video'] == str(poison)
    assert 'ended its worker' in failed['error']
    assert not flag.exists()
    assert results(out) == results(tmp_path / 'one')


def test_a_cluster_that_does_not_answer(project, tmp_path, capsys):
    pytest.importorskip('ray.data')
    args = (*arguments(project, tmp_path), '--ray', '127.0.0.1:1')
    line = run_and_fail(capsys, 'detect_videos', *args)
    assert '--ray 127.0.0.1:1: no cluster answers' in line


def test_ray_that_is_not_installed(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'ray', None)
    line = run_and_fail(capsys, 'detect_videos', *arguments(project, tmp_path), '--ray')
    assert "pip install 'stmixer_mm[ray]'" in line


def test_places_that_cannot_be_written(project, tmp_path, capsys):
    file = tmp_path / 'file'
    file.touch()
    line = run_and_fail(capsys, 'detect_videos', *arguments(project, file / 'out'))
    assert f'{file}/out cannot be written to' in line
    line = run_and_fail(capsys, 'detect_videos', *arguments(project, 'nowhere://out'))
    assert '--out nowhere://out cannot be opened' in line
