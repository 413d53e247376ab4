"""Detect persons and their actions along a video, and draw them into a copy of it.

Damaged parts of the video are left out and named at the end; the exit status is then 1.
"""

from contextlib import suppress
from pathlib import Path

from stmixer_mm.apis.inferencer import ActionDetInferencer, ModelOptions, StreamOptions
from stmixer_mm.apis.read import reader_of
from stmixer_mm.apis.rendering import VIDEOS
from stmixer_mm.apis.results import HEAD
from stmixer_mm.command_line import Overrides, overrides, run_main
from stmixer_mm.datasets.streams import input_files, open_source
from stmixer_mm.errors import UserError
from stmixer_mm.files import check_no_input, check_own, check_writable_file
from stmixer_mm.projects.tiles.tiles import TileOptions, choose_predictor
from stmixer_mm.registry import RESULT_SUFFIXES, result_writer

with suppress(ModuleNotFoundError):  # further formats of results, exported files
    import stmixer_mm.projects.annotate
    import stmixer_mm.projects.common.live_sources
    import stmixer_mm.projects.export
    import stmixer_mm.projects.streaming  # noqa: F401


def main(
    video: str,
    config: str,
    checkpoint: str,
    *,
    out: str,
    json: str | None = None,
    csv: str | None = None,
    timeline: str | None = None,
    device: str | None = None,
    model: ModelOptions,
    settings: Overrides,
    detection: StreamOptions,
    tiling: TileOptions,
) -> None:
    """
    Args:
        video: Video file, folder of pictures, URL, or - for standard input.
        config: Config file, or the name of one in configs/.
        checkpoint: Checkpoint file or URL, or a file written by tools/export.py.
        out: Video to write: .mp4, .mov or .mkv.
        json: File for the detections; by default OUT with .json. Another suffix chooses
            another format: .csv, .xml (for CVAT), .parquet.
        csv: File for a table of the detections.
        timeline: Picture (.png) of who does what when.
        device: Such as cpu or cuda:0; by default the GPU if there is one.
    """
    files = input_files(video)
    check_writable_file(out, purpose='--out', suffixes=VIDEOS, inputs=files)
    if json is None:
        json = str(Path(out).with_suffix('.json'))
        check_own(json, HEAD)
    tables = {'--json': json, '--csv': csv, '--timeline': timeline}
    tables = {option: path for option, path in tables.items() if path}
    for option, path in tables.items():
        check_writable_file(
            path, purpose=option, suffixes=RESULT_SUFFIXES, inputs=files
        )
        result_writer(path)
    detection['predictor'] = choose_predictor(**tiling)
    # A bad video is reported before the model is built.
    open_source(video, on_damage=lambda damage: None)
    inferencer = ActionDetInferencer(
        config, checkpoint, device, cfg_options=overrides(**settings), **model
    )
    for option, path in {'--out': out, **tables}.items():
        check_no_input([path], inferencer.input_files, purpose=option)
    results = inferencer.detect(video, vis_file=out, strict=True, **detection)
    for path in tables.values():
        results.save(path)
    keyframes = results.keyframes
    counts = [len(keyframe.persons) for keyframe in keyframes]
    persons = sum(counts) if results.tubes is None else len(results.tubes)
    frames = 'frames' if reader_of(inferencer.model).every_frame else 'keyframes'
    share = f'{sum(map(bool, counts))} of {len(keyframes)}'
    print(f'persons: {persons}, in {share} {frames}')
    print(
        f'video: {out}',
        *(
            f'{"timeline" if path == timeline else "detections"}: {path}'
            for path in tables.values()
        ),
        sep='\n',
    )
    if results.damage:
        parts = (f'{start:.2f} s to {end:.2f} s' for start, end in results.damage)
        raise UserError(
            f'{video} is damaged: {", ".join(parts)} cannot be decoded, and '
            'clips that reach into it were left out; fetch it again or re-encode it.'
        )


if __name__ == '__main__':
    run_main(main)
