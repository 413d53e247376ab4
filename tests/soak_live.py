"""Live detection for long, with a camera that is cut off several times.

Starts looped_camera.py and tools/live.py with a viewer of its page; prints RAM and
latency of each minute. Exits with 1 if RAM has grown by more than 5 % since the first
minute, a latency was above --most-latency, or a cut was not survived. Other options are
those of tools/live.py.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from run_tool import ROOT, free_port


def view(url):
    """Read the pictures of a page until it is closed."""
    with suppress(OSError), urlopen(f'{url}picture') as stream:
        while stream.read(2**16):
            pass


def ram_of(process):
    """MB."""
    status = Path(f'/proc/{process.pid}/status').read_text()
    return int(re.search(r'VmRSS:\s*(\d+)', status)[1]) / 1024


def soak(args, lines):
    """Faults; the keyframes are written to ``lines``."""
    port = free_port()
    camera_command = [sys.executable, ROOT / 'tests' / 'looped_camera.py', args.video]
    camera_command += ['--port', str(port)]
    live_command = [sys.executable, ROOT / 'tools' / 'live.py']
    live_command += [f'http://127.0.0.1:{port}', args.config, args.checkpoint]
    live_command += ['--page', '0', '--json-lines', lines, *args.options]
    camera = subprocess.Popen(camera_command)
    time.sleep(args.cut_s)
    live = subprocess.Popen(live_command, stderr=subprocess.PIPE, text=True)
    rams, cuts = {}, 0
    try:
        url = live.stderr.readline().removeprefix('page: ').strip()
        for target in (lambda: view(url)), (lambda: [*map(print, live.stderr)]):
            threading.Thread(target=target, daemon=True).start()
        begin = time.monotonic()
        while (minutes := (time.monotonic() - begin) / 60) < args.minutes:
            time.sleep(1)
            rams[int(minutes)] = max(ram_of(live), rams.get(int(minutes), 0))
            if minutes > args.minutes * (cuts + 1) / (args.cuts + 1):
                cuts += 1
                camera.kill()
                camera.wait()
                time.sleep(args.cut_s)
                camera = subprocess.Popen(camera_command)
        live.terminate()
        live.wait(300)
    finally:
        camera.kill()
        live.kill()
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    times, latencies = np.array([[one['time_s'], one['latency_s']] for one in found]).T
    for minute, ram in rams.items():
        late = latencies[times // 60 == minute]
        quantiles = np.percentile(late, [50, 95, 100]) if len(late) else []
        print(
            f'minute {minute}: {ram:.0f} MB, {len(late)} keyframes, latency {quantiles}'
        )
    growth = max(rams.values()) / rams[0] - 1
    print(
        f'{len(found)} keyframes, RAM {growth:+.1%}, latency {latencies.max()} s at most'
    )
    faults = {
        'RAM has grown': growth > 0.05,
        'a latency was too long': latencies.max() > args.most_latency,
        'a cut was not survived': times[-1] < 60 * (args.minutes - 1),
    }
    return [fault for fault, is_so in faults.items() if is_so]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('video')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--cuts', type=int, default=3)
    parser.add_argument('--cut-s', type=float, default=5)
    parser.add_argument('--most-latency', type=float, default=10)
    args, args.options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit('; '.join(soak(args, Path(folder, 'lines.json'))) or None)
