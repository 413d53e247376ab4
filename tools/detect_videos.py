"""Detect persons and their actions in many videos.

Each video gets a JSON file in OUT; started again, the tool skips the videos that have
one. With --ray, workers of a Ray cluster share the videos, and Ray Data writes a data
set. A video that cannot be read is reported on one line; the exit status is then 1.
"""

import os
from argparse import ArgumentTypeError
from typing import Annotated, Literal

from stmixer_mm.apis.inferencer import ActionDetInferencer, ModelOptions, StreamOptions
from stmixer_mm.command_line import CfgOptions, Count, PersonThr, run_main
from stmixer_mm.datasets.streams import list_sources
from stmixer_mm.projects.many_videos.many_videos import detect_videos, detect_with_ray


def read_shard(text: str) -> tuple[int, int]:
    """I/N of ``--shard``."""
    number, _, count = text.partition('/')
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ArgumentTypeError(f'{text!r} is not I/N with I from 0 to N - 1')
    return int(number), int(count)


def main(
    videos: str,
    config: str,
    checkpoint: str,
    *,
    out: str,
    shard: Annotated[
        tuple[int, int], dict(type=read_shard, nargs=None, metavar='I/N')
    ] = (0, 1),
    ray: Annotated[str | None, dict(nargs='?', const='', metavar='ADDRESS')] = None,
    format: Literal['json', 'parquet'] = 'json',
    workers: Count | None = None,
    cpus_per_worker: Count = 1,
    device: str | None = None,
    model: ModelOptions,
    person_thr: PersonThr = None,
    cfg_options: CfgOptions = None,
    detection: StreamOptions,
) -> None:
    """
    Args:
        videos: Folder of videos, text file with one in each line, pattern in quotes,
            video file or URL.
        config: Config file, or the name of one in configs/.
        checkpoint: Checkpoint file or URL, or a file written by tools/export.py.
        out: Folder of the results; with --ray, any place that pyarrow knows.
        shard: Detect in the share I, from 0, of N shares of the videos.
        ray: Use workers of this Ray cluster; without ADDRESS, of the running one, or
            of this machine.
        format: Format of the data set with --ray.
        workers: Maximum number of workers with --ray; by default one for each GPU, or
            without GPUs as many as have cores.
        cpus_per_worker: Cores of each worker with --ray.
        device: Such as cpu or cuda:0; by default the GPU if there is one.
    """
    # Workers of Ray have other current folders.
    paths = dict(model=config, weights=checkpoint, label_file=model.pop('label_file'))
    for name, path in paths.items():
        if path is not None and os.path.exists(path):
            paths[name] = os.path.abspath(path)

    def build() -> ActionDetInferencer:
        import stmixer_mm.projects.export  # noqa: F401 - exported files as checkpoints

        return ActionDetInferencer(
            **paths,
            **model,
            device=device,
            cfg_options=(person_thr or {}) | (cfg_options or {}),
            show_progress=False,
        )

    sources = list_sources(videos)
    if ray is None:
        detect_videos(sources, build, out, shard=shard, **detection)
    else:
        detect_with_ray(
            sources,
            build,
            out,
            form=format,
            address=ray,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            **detection,
        )


if __name__ == '__main__':
    run_main(main)
