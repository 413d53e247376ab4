"""Detect persons and their actions along a video, and draw them into a copy of it."""

import argparse
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from stmixer_mm.apis import (
    add_cfg_options,
    check_detection_path,
    check_video_path,
    detect_video,
    detection_file,
    init_detector,
    render_video,
    video_info,
)
from stmixer_mm.errors import user_errors
from stmixer_mm.files import check_writable_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('video', help='video file')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        '--out', required=True, help='video to write: .mp4, .mov, .mkv or .avi'
    )
    parser.add_argument(
        '--json',
        metavar='FILE',
        help='file for the detections; without --json and --csv, OUT with .json',
    )
    parser.add_argument('--csv', metavar='FILE', help='the same as a table')
    parser.add_argument(
        '--interval-s',
        type=float,
        default=1.0,
        help='seconds between keyframes (default: %(default)s)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='leave out actions with lower scores (default: %(default)s)',
    )
    parser.add_argument(
        '--start', type=float, default=0.0, help='from here, in seconds'
    )
    parser.add_argument('--end', type=float, help='to here, in seconds')
    parser.add_argument(
        '--batch-size', type=int, default=1, help='clips that the model sees at once'
    )
    parser.add_argument('--device', default='cpu', help='as in cpu or cuda:0')
    parser.add_argument(
        '--label-map',
        help='label map (pbtxt); by default the names known to checkpoint or config',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    out = Path(args.out)
    tables = [Path(path) for path in (args.json, args.csv) if path]
    tables = tables or [out.with_suffix('.json')]
    check_video_path(out)
    for path in tables:
        check_detection_path(path)
    for path in (out, *tables):
        check_writable_file(path, purpose='the output')
    info = video_info(args.video)
    model = init_detector(
        args.config,
        args.checkpoint,
        device=args.device,
        label_map=args.label_map,
        cfg_options=args.cfg_options,
    )
    keyframes = detect_video(
        model,
        args.video,
        interval_s=args.interval_s,
        start=args.start,
        end=args.end,
        score_thr=args.score_thr,
        batch_size=args.batch_size,
    )
    first = round(args.start * info.fps)
    last = info.total_frames
    if args.end is not None:
        last = max(first + 1, min(last, round(args.end * info.fps)))

    with ExitStack() as files:
        writers = [
            files.enter_context(detection_file(path, video=args.video, info=info))
            for path in tables
        ]
        progress = files.enter_context(
            tqdm(total=last - first, unit='frame', desc=out.name)
        )

        def recorded():
            for found in keyframes:
                for write in writers:
                    write(found)
                yield found

        render_video(
            args.video,
            recorded(),
            out,
            info=info,
            first_frame=first,
            end_frame=last,
            on_frame=progress.update,
        )
    print(f'video: {out}', *(f'detections: {path}' for path in tables), sep='\n')


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
