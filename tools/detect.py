"""Detect persons and their actions in videos: drawn copies, tables, timelines.

OUT gets for each video a copy with the detections drawn into it (.mp4), the detections
(.json) and a picture of who does what when (.png); and detections.csv, with a row for
each action in all of them. Started again, finished videos are skipped. A video that
cannot be read is reported on one line; the exit status is then 1.
"""

from pathlib import Path

import stmixer_mm.projects.export
import stmixer_mm.projects.streaming  # noqa: F401
from stmixer_mm.apis.inferencer import ActionDetInferencer, ModelOptions, StreamOptions
from stmixer_mm.command_line import Overrides, overrides, run_main
from stmixer_mm.datasets.streams import list_sources
from stmixer_mm.projects.many_videos.many_videos import detect_videos
from stmixer_mm.projects.tiles.tiles import TileOptions, choose_predictor


def main(
    videos: str,
    *,
    model: str | None = None,
    weights: str | None = None,
    out: Path = Path('detections'),
    no_video: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    building: ModelOptions,
    settings: Overrides,
    detection: StreamOptions,
    tiling: TileOptions,
) -> None:
    """
    Args:
        videos: Video, folder of videos, text file with one in each line, pattern in
            quotes, or URL.
        model: Model of this package (default: stmixer-n_jhmdb), or of the release,
            whose weights are fetched once, such as stmixer_slowonly-r50_ava22; a
            checkpoint of yours, with its config in it; or with --weights a config.
        weights: Checkpoint file or URL, or a file written by tools/export.py.
        out: Folder of the results.
        no_video: Do not draw the detections.
        overwrite: Detect anew where results are of another model or other options.
        device: Such as cpu or cuda:0; by default the GPU if there is one.
    """

    def build() -> ActionDetInferencer:
        return ActionDetInferencer(
            model,
            weights,
            device,
            cfg_options=overrides(**settings),
            **building,
            show_progress=False,
        )

    detection['predictor'] = choose_predictor(**tiling)
    files = dict(draw=not no_video, table=True, overwrite=overwrite)
    detect_videos(list_sources(videos), build, out, **files, **detection)


if __name__ == '__main__':
    run_main(main)
