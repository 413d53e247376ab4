"""Live detection from the command line."""

import json
import os
import signal
import threading

import pytest
from run_tool import load_tool, named, run_tool
from tiny_stmixer import write_video

EVERYONE = ('--cfg-options', 'model.head.score_thr=0.0')


def test_a_file_is_shown_to_its_end(tiny_model, tmp_path, capfd):
    video = write_video(tmp_path / 'new.mp4', frames=10, fps=10, size=(96, 64))
    run_tool(
        'live', video, *named(tiny_model), '--page', 0, '--json-lines', '-', *EVERYONE
    )
    printed = capfd.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]  # and nothing else
    assert all(line['latency_s'] > 0 for line in lines)
    assert {(line['width'], line['height']) for line in lines} == {(96, 64)}
    assert lines[0]['persons'][0]['id'] == 0
    assert f'keyframes {len(lines)}' in printed.err.splitlines()[-1]


def test_lines_of_the_last_run_survive_a_source_that_does_not_open(
    tiny_model, tmp_path
):
    video, lines = tmp_path / 'none.mp4', tmp_path / 'lines.json'
    video.write_text('no video')
    lines.write_text('last run')
    with pytest.raises(SystemExit):
        run_tool('live', video, *named(tiny_model), '--json-lines', lines)
    assert lines.read_text() == 'last run'


def test_an_interrupted_program_ends_whole(tiny_model, tmp_path, capfd):
    threads = set(threading.enumerate())
    lines = tmp_path / 'lines.json'
    camera = load_tool('demo/looped_camera.py').camera
    server = camera(str(write_video(tmp_path / 'loop.mp4')), 0)
    server.daemon_threads = False  # they end with their viewer
    threading.Thread(target=server.serve_forever).start()
    is_over = threading.Event()

    def interrupt():
        while not (lines.exists() and lines.read_text().count('\n') > 2):
            if is_over.wait(0.02):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    url = 'http://{}:{}'.format(*server.server_address)
    options = ('--page', 0, '--json-lines', lines, '--fast', *EVERYONE)
    with pytest.raises(SystemExit) as leave:
        run_tool('live', url, *named(tiny_model), *options)
    is_over.set()
    assert leave.value.code == 128 + signal.SIGTERM
    server.shutdown()
    server.server_close()
    assert set(threading.enumerate()) == threads
    assert 'page: http://127.0.0.1:' in capfd.readouterr().err
    assert all(map(json.loads, lines.read_text().splitlines()))
