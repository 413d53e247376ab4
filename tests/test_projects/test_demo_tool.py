import csv
import json

import av
import cv2
import numpy as np
import pytest
from run_tool import run_and_fail, run_tool
from tiny_stmixer import write_video


def test_video_and_detections_are_written(tiny_model, tmp_path, capsys):
    video = write_video(tmp_path / 'new.mp4', frames=25, fps=10, size=(96, 64))
    out, table = tmp_path / 'new folder' / 'out.mp4', tmp_path / 'found.csv'
    json_file, label_map = tmp_path / 'a.json', tiny_model[0].with_name('actions.pbtxt')
    options = f'--start 0.5 --end 2 --interval-s 0.5 --batch-size 2 --csv {table}'
    options += f' --json {json_file} --label-map {label_map} --nms-thr 1 --score-thr 0'
    options += ' --cfg-options model.head.score_thr=0.0'
    run_tool('demo', video, *tiny_model, '--out', out, *options.split())
    capture = cv2.VideoCapture(str(out))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 15
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    record = json.loads(json_file.read_text())
    assert [keyframe['time_s'] for keyframe in record['keyframes']] == [0.5, 1, 1.5]
    persons = [person for key in record['keyframes'] for person in key['persons']]
    assert [person['id'] for person in persons] == [0, 1, 2, 3] * 3
    actions = {action['action'] for person in persons for action in person['actions']}
    assert actions == {'stand', 'walk'}
    with open(table, newline='') as file:
        times = {float(row['time_s']) for row in csv.DictReader(file)}
    assert times == {0.5, 1, 1.5}
    assert 'persons: 4, in 3 of 3 keyframes' in capsys.readouterr().out


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
    out = tmp_path / 'out.mp4'
    args = (video, *tiny_model, '--out', out, '--interval-s', 0.5)
    message = run_and_fail(capsys, 'demo', *args)
    assert f'{video} is damaged: 3.00 s to 4.00 s cannot be decoded' in message
    keyframes = json.loads(out.with_suffix('.json').read_text())['keyframes']
    found_times = [keyframe['time_s'] for keyframe in keyframes]
    assert found_times == [0, 0.5, 1, 1.5, 2, 2.5, 4.5, 5, 5.5]
    with av.open(out) as container:
        codecs = [track.codec_context.name for track in container.streams]
        assert codecs == ['h264', 'aac']
        shown = [float(frame.time) for frame in container.decode(video=0)]
        np.testing.assert_allclose(shown, np.delete(times, range(30, 40)), atol=1e-3)
