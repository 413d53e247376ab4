"""A headless Chromium, driven through its debugging pipe."""

import base64
import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which('chromium')
PATIENCE_S = 120


class Chromium:
    """One page of it.

    Args:
        url: What it opens.
        folder: For what it keeps.
    """

    def __init__(self, url, folder):
        commands, self._to = os.pipe()
        answers_from, answers = os.pipe()
        self._process = subprocess.Popen(
            [
                *(
                    'bash',
                    '-c',
                    f'exec "$@" 3<&{commands} 4>&{answers}',
                    'bash',
                    CHROMIUM,
                ),
                *('--headless=new', '--no-sandbox', '--disable-gpu'),
                *('--disable-dev-shm-usage', '--remote-debugging-pipe'),
                f'--user-data-dir={folder}',
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._answers = os.fdopen(answers_from, 'rb')
        self._number, self._session = 0, {}
        target = self.tell('Target.createTarget', url=url)
        attached = self.tell('Target.attachToTarget', flatten=True, **target)
        self._session = attached
        self.tell('DOM.enable')

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.terminate()
        self._process.wait()
        self._answers.close()
        os.close(self._to)

    def tell(self, method, **params):
        self._number += 1
        command = dict(id=self._number, method=method, params=params, **self._session)
        os.write(self._to, json.dumps(command).encode() + b'\0')
        while True:
            answer = json.loads(self._read())
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer
                return answer['result']

    def _read(self):
        text = bytearray()
        while (byte := self._answers.read(1)) != b'\0':
            assert byte, 'Chromium ended'
            text += byte
        return text

    def run(self, script):
        """The value of an expression."""
        answer = self.tell('Runtime.evaluate', expression=script, returnByValue=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def wait_for(self, script):
        """The value of an expression, as soon as it is true."""
        end = time.monotonic() + PATIENCE_S
        script = f'(() => {{ try {{ return {script}; }} catch {{}} }})()'
        while not (value := self.run(script)):
            assert time.monotonic() < end, script
            time.sleep(0.05)
        return value

    def choose_file(self, selector, path):
        root = self.tell('DOM.getDocument')['root']['nodeId']
        node = self.tell('DOM.querySelector', nodeId=root, selector=selector)
        self.tell('DOM.setFileInputFiles', files=[str(path)], **node)

    def screenshot(self, path, *, width=1100, height=760):
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.tell('Emulation.setDeviceMetricsOverride', **size)
        time.sleep(1)
        data = self.tell('Page.captureScreenshot', format='png')['data']
        path.write_bytes(base64.b64decode(data))
