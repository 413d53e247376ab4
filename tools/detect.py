"""Detect persons and their actions in videos: drawn copies, tables, timelines.

OUT gets for each video a copy with the detections drawn into it (.mp4), the detections
(.json) and a picture of who does what when (.png); and detections.csv, with a row for
each action in all of them. Started again, finished videos are skipped. With --ray,
workers of a Ray cluster share the videos, and Ray Data writes a data set. A video that
cannot be read is reported on one line; the exit status is then 1.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from stmixer_mm.apis.inferencer import ActionDetInferencer, ModelOptions, StreamOptions
from stmixer_mm.command_line import OptionsOf, Overrides, Shard, overrides, run_main
from stmixer_mm.datasets.streams import list_sources
from stmixer_mm.errors import UserError
from stmixer_mm.projects.many_videos.many_videos import detect_videos, detect_with_ray
from stmixer_mm.projects.tiles.tiles import TileOptions, choose_predictor

Form = Literal['csv', 'cvat', 'labelstudio', 'coco', 'json', 'parquet']


def main(
    videos: Sequence[str],
    *,
    model: str | None = None,
    weights: str | None = None,
    out: str = 'detections',
    no_video: bool = False,
    overwrite: bool = False,
    form: Annotated[Form | None, dict(flag='--format')] = None,
    shard: Shard = (0, 1),
    cluster: Annotated[dict, OptionsOf(detect_with_ray)],
    device: str | None = None,
    building: ModelOptions,
    settings: Overrides,
    detection: StreamOptions,
    tiling: TileOptions,
) -> None:
    """
    Args:
        videos: Videos, folders of videos, text files with a video in each line, patterns
            in quotes, or URLs.
        model: Model of this package (default: stmixer-n_jhmdb), or of the release,
            whose weights are fetched once, such as stmixer_slowonly-r50_ava22; a
            checkpoint of yours, with its config in it; or with --weights a config.
        weights: Checkpoint file or URL, or a file written by tools/export.py.
        out: Folder of the results; with --ray, any place that pyarrow knows.
        no_video: Do not draw the detections.
        overwrite: Detect anew where results are of another model or other options.
        form: Write OUT/FORMAT/NAME for each video, too: its tracks as a table (csv), or
            for an annotation tool (cvat, labelstudio, coco). With --ray, the form of
            the data set: json (lines, default) or parquet.
        shard: Detect in the share I, from 0, of N shares of the videos only, without
            detections.csv.
        device: Such as cpu or cuda:0; by default the GPU if there is one.
    """
    options = dict(building, cfg_options=overrides(**settings), device=device)
    label_file = absolute(options.pop('label_file'))
    build = partial(
        build_inferencer, absolute(model), absolute(weights), label_file, options
    )
    detection['predictor'] = choose_predictor(**tiling)
    sources = list_sources(videos)
    check_form(form, with_ray=cluster['address'] is not None)
    if cluster['address'] is not None:
        detect_with_ray(sources, build, out, form or 'json', **cluster, **detection)
        return
    if form is not None:
        import stmixer_mm.projects.annotate  # noqa: F401
    files = dict(draw=not no_video, table=shard[1] == 1, overwrite=overwrite, form=form)
    detect_videos(sources, build, out, shard=shard, **files, **detection)


def absolute(path: str | None) -> str | None:
    """The path of a file from any folder, as workers of Ray have others; else a name."""
    return os.path.abspath(path) if path and os.path.exists(path) else path


def build_inferencer(
    model: str | None, weights: str | None, label_file: str | None, options: dict
) -> ActionDetInferencer:
    import stmixer_mm.projects.streaming  # noqa: F401

    return ActionDetInferencer(
        model, weights, label_file=label_file, show_progress=False, **options
    )


def check_form(form: Form | None, *, with_ray: bool) -> None:
    is_data_set = form in ('json', 'parquet')
    if with_ray and not (form is None or is_data_set):
        raise UserError(f'--format {form} is not written with --ray; leave --ray out.')
    if is_data_set and not with_ray:
        raise UserError(
            f'--format {form} needs --ray, and that pyarrow and Ray: '
            "pip install 'stmixer_mm[ray]'."
        )


if __name__ == '__main__':
    run_main(main)
