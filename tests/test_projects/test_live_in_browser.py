"""The page of live detection in Chromium, with a looped file as camera."""

import json
import threading
import time
from collections import deque

import cv2
import numpy as np
import pytest
from chromium import CHROMIUM, Chromium
from detections import keyframe
from looped_camera import camera
from tiny_stmixer import write_video

from stmixer_mm.projects.live.detection import LiveDetection, LiveSource
from stmixer_mm.projects.live.page import LivePage
from stmixer_mm.projects.live.pictures import LivePictures
from stmixer_mm.structures import VideoDetections

NASTY = '<img src=x onerror="document.title=1">'

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason='needs Chromium (Debian: apt install chromium)'
)


def find(clips):
    for clip in clips:
        actions = [[(NASTY, 0.9), ('walk', 0.5)]]
        bboxes = np.array([[10, 10, 50, 40.0]])
        yield keyframe(clip.time_s, clip.frame_index, bboxes, actions, [3])


@pytest.fixture
def page(tmp_path):
    server = camera(str(write_video(tmp_path / 'loop.mp4')), 0)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    pictures = LivePictures(0.3)
    page = LivePage(
        pictures,
        lambda: live.figures,
        name=f'camera {NASTY}',
        detect=lambda upload: VideoDetections(source=upload.name),
    )
    live = LiveDetection(
        LiveSource('http://{}:{}'.format(*server.server_address)),
        find,
        (2, 2),
        interval_s=0.2,
        listeners=[pictures, page],
    )

    def show():
        deque(map(page.show, (picture for _, picture in pictures)), maxlen=0)

    output = threading.Thread(target=show)
    output.start()
    page.start()
    live.start()
    yield page
    live.stop()
    pictures.finish()
    page.close()
    server.shutdown()
    server.server_close()
    output.join()


def test_the_page_works(page, tmp_path):
    with Chromium(page.url, tmp_path / 'profile') as browser:
        # Small pictures are enlarged.
        assert (
            browser.wait_for("document.getElementById('picture').naturalHeight") == 360
        )
        first = browser.wait_for("document.querySelector('#persons li').innerText")
        assert first == f'{NASTY} 0.90, walk 0.50'
        assert browser.run("document.getElementById('source').innerText").endswith(
            NASTY
        )
        rows = browser.run(
            "[...document.querySelectorAll('.row span')].map(one => one.innerText)"
        )
        assert rows == [f'3: {NASTY}', '3: walk']
        browser.wait_for("document.querySelector('.bars i').offsetWidth > 5")
        assert browser.run('document.title') == 'Live'  # it never became HTML

        slider = "document.getElementById('threshold')"
        browser.run(f'{slider}.value = 0.6; {slider}.dispatchEvent(new Event("input"))')
        browser.wait_for(f"document.querySelector('li').innerText === '{NASTY} 0.90'")

        name = f'{NASTY.replace("/", "")}.mp4'
        (tmp_path / name).write_bytes(b'a video')
        browser.choose_file('#file', tmp_path / name)
        link = "document.querySelector('#upload a')"
        browser.wait_for(f'{link}?.download')
        assert browser.run(f'{link}.download') == f'{name}.json'
        browser.tell(
            'Browser.setDownloadBehavior', behavior='allow', downloadPath=str(tmp_path)
        )
        browser.run(f'{link}.click()')
        while not (files := list(tmp_path.glob('*.json'))):
            time.sleep(0.05)
        assert json.loads(files[0].read_text())['video'] == name

        browser.screenshot(tmp_path / 'page.png')
    picture = cv2.imread(str(tmp_path / 'page.png'))
    assert picture.shape == (760, 1100, 3)
    assert picture.std() > 10
