"""Live detection for long, with a camera that is cut off: does it go on as it began?

Starts the camera of looped_camera.py and tools/live.py with somebody who looks at its
page; prints RAM and latency of each minute, and ends with 1 if RAM has grown by more than
5 % since the first minute, a latency was above --most-latency, or a cut was not survived.
"""

import argparse
import json
import signal
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


def look(url: str, seen: dict) -> None:
    """Count the pictures of a page, until it is gone."""
    with suppress(OSError), urlopen(f'{url}picture') as stream:
        while line := stream.readline():
            seen['pictures'] += line.startswith(b'Content-Type')


def follow(url: str, seen: dict) -> None:
    """Keep the newest figures of a page."""
    with suppress(OSError), urlopen(f'{url}events') as stream:
        while line := stream.readline():
            if line.startswith(b'data: '):
                event = json.loads(line.removeprefix(b'data: '))
                seen['figures'] = dict(event['figures'])


def ram_of(process: subprocess.Popen) -> float:
    """MB."""
    status = Path(f'/proc/{process.pid}/status').read_text()
    (line,) = (line for line in status.splitlines() if line.startswith('VmRSS'))
    return int(line.split()[1]) / 1024


def soak(args: argparse.Namespace, folder: Path) -> list[str]:
    """What was wrong."""
    port, lines = free_port(), folder / 'lines.json'
    camera_command = [sys.executable, ROOT / 'tests' / 'looped_camera.py', args.video]
    camera_command += ['--port', str(port)]
    live_command = [sys.executable, ROOT / 'tools' / 'live.py']
    live_command += [f'http://127.0.0.1:{port}', args.config, args.checkpoint]
    live_command += ['--page', '0', '--json-lines', lines, *args.options]
    camera = subprocess.Popen(camera_command)
    time.sleep(args.cut_s)  # it has to be there when it is opened for the first time
    live = subprocess.Popen(live_command, stderr=subprocess.PIPE, text=True)
    seen, rams, faults = dict(pictures=0, figures={}), [], []
    try:
        for line in live.stderr:
            print(line, end='')
            if line.startswith('page: '):
                break
        url = line.removeprefix('page: ').strip()
        for what in look, follow:
            threading.Thread(target=what, args=[url, seen], daemon=True).start()
        threading.Thread(
            target=lambda: [print(line, end='') for line in live.stderr], daemon=True
        ).start()
        while not int(seen['figures'].get('frames', 0)):
            time.sleep(0.1)
        begin, cuts = time.monotonic(), 0
        while (since := time.monotonic() - begin) < 60 * args.minutes:
            time.sleep(1)
            if live.poll() is not None:
                return [f'live.py ended after {since:.0f} s']
            rams.append((since, ram_of(live)))
            if since > 60 * args.minutes * (cuts + 1) / (args.cuts + 1):
                cuts += 1
                print(f'{since:.0f} s: the camera is cut off')
                camera.kill()
                camera.wait()
                time.sleep(args.cut_s)
                camera = subprocess.Popen(camera_command)
        live.send_signal(signal.SIGTERM)
        live.wait(300)
    finally:
        camera.kill()
        live.kill()
    return faults + report(args, rams, seen, lines, live.returncode)


def report(
    args: argparse.Namespace, rams: list, seen: dict, lines: Path, code: int
) -> list[str]:
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    since = np.array([one for one, _ in rams])
    megabytes = np.array([one for _, one in rams])
    times = np.array([one['time_s'] for one in found])
    latencies = np.array([one['latency_s'] for one in found])
    print('minute   RAM, MB (most)   keyframes   latency: median   95 %   most')
    for minute in range(int(np.ceil(args.minutes))):
        ram = megabytes[since // 60 == minute]
        late = latencies[times // 60 == minute]
        if len(ram) and len(late):
            quantiles = np.percentile(late, [50, 95, 100])
            print(
                f'{minute:6d}   {ram.max():14.0f}   {len(late):9d}   '
                '{:15.2f}   {:4.2f}   {:4.2f}'.format(*quantiles)
            )
    first = megabytes[since <= 60].max()
    growth = megabytes.max() / first - 1
    connections = int(seen['figures']['connections'])
    print(
        f'RAM {first:.0f} MB after the first minute, {100 * growth:+.1f} % at most; '
        f'latency {np.median(latencies):.2f} s (median), '
        f'{np.percentile(latencies, 95):.2f} s (95 %), {latencies.max():.2f} s (most); '
        f'{len(found)} keyframes, {seen["pictures"]} pictures shown, '
        f'{connections} connections, {args.cuts} cuts, exit status {code}'
    )
    faults = {
        'RAM has grown': growth > 0.05,
        'a latency was too long': latencies.max() > args.most_latency,
        'a cut was not survived': connections <= args.cuts,
        'it ended otherwise than by SIGTERM': code != 128 + signal.SIGTERM,
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
    args, args.options = parser.parse_known_args()  # of tools/live.py
    with tempfile.TemporaryDirectory() as folder:
        faults = soak(args, Path(folder))
    sys.exit('; '.join(faults) or None)
