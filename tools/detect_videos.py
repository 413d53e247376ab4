"""Detect persons and their actions in many videos.

Each video gets a JSON file in OUT; started again, the tool skips the videos that have
one. With --ray, workers of a Ray cluster share the videos, and Ray Data writes a data
set. A video that cannot be read is reported on one line; the exit status is then 1.
"""

import os
from typing import Annotated

from stmixer_mm.apis.inferencer import ActionDetInferencer, ModelOptions, StreamOptions
from stmixer_mm.command_line import OptionsOf, Overrides, overrides, run_main
from stmixer_mm.datasets.streams import list_sources
from stmixer_mm.errors import UserError
from stmixer_mm.projects.many_videos.many_videos import detect_videos, detect_with_ray
from stmixer_mm.projects.tiles.tiles import TileOptions, choose_predictor


def main(
    videos: str,
    config: str,
    checkpoint: str,
    *,
    out: str,
    share: Annotated[dict, OptionsOf(detect_videos)],
    cluster: Annotated[dict, OptionsOf(detect_with_ray)],
    device: str | None = None,
    model: ModelOptions,
    settings: Overrides,
    detection: StreamOptions,
    tiling: TileOptions,
) -> None:
    """
    Args:
        videos: Folder of videos, text file with one in each line, pattern in quotes,
            video file or URL.
        config: Config file, or the name of one in configs/.
        checkpoint: Checkpoint file or URL, or a file written by tools/export.py.
        out: Folder of the results; with --ray, any place that pyarrow knows.
        device: Such as cpu or cuda:0; by default the GPU if there is one.
    """
    # Workers of Ray have other current folders.
    paths = dict(model=config, weights=checkpoint, label_file=model.pop('label_file'))
    for name, path in paths.items():
        if path is not None and os.path.exists(path):
            paths[name] = os.path.abspath(path)

    def build() -> ActionDetInferencer:
        import stmixer_mm.projects.export
        import stmixer_mm.projects.streaming  # noqa: F401

        return ActionDetInferencer(
            **paths,
            **model,
            device=device,
            cfg_options=overrides(**settings),
            show_progress=False,
        )

    detection['predictor'] = choose_predictor(**tiling)
    sources = list_sources(videos)
    if cluster['address'] is None and cluster['form'] is not None:
        raise UserError(
            f'--format {cluster["form"]} needs --ray, and that pyarrow and Ray: '
            "pip install 'stmixer_mm[ray]'."
        )
    if cluster['address'] is None:
        detect_videos(sources, build, out, **share, **detection)
    else:
        detect_with_ray(sources, build, out, **cluster, **detection)


if __name__ == '__main__':
    run_main(main)
