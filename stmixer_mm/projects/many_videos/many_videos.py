"""Detection in many videos: a JSON file for each, or a data set that Ray Data writes.

A JSON file appears whole or not at all, so an interrupted run loses only the video in
progress, and the next run skips those that have a file, which says what it was made with,
and did not change since.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tqdm import tqdm

from stmixer_mm.apis.inferencer import ActionDetInferencer
from stmixer_mm.apis.results import COLUMNS, HEAD, arrow_table, write_rows
from stmixer_mm.command_line import Count, Shard
from stmixer_mm.datasets.streams import (
    is_live,
    name_source,
    source_files,
)
from stmixer_mm.errors import UserError, blame, tell
from stmixer_mm.files import (
    begins_with,
    check_no_input,
    check_own,
    check_writable_dir,
    lock_folder,
)
from stmixer_mm.projects.common.unfinished import choose_unfinished, source_version
from stmixer_mm.structures import VideoDetections

ANSWER_S = 20.0  # until a cluster that does not answer is not there
_RETRIES = 2  # of a video during which a worker of Ray died
_MAX_BLOCKS = 10_000  # of a Ray data set, each of which is a task

# Suffixes of files for annotators and spreadsheets, by format.
TRACK_FORMATS = dict(csv='.csv', cvat='.xml', coco='.json', labelstudio='.json')

Build = Callable[[], ActionDetInferencer]


def detect_videos(
    sources: Iterable[str],
    build: Build,
    out: str | Path,
    *,
    shard: Shard = (0, 1),
    draw: bool = False,
    table: bool = False,
    overwrite: bool = False,
    form: str | None = None,
    **options,
) -> None:
    """Write a JSON file for each video that has none, or changed since.

    Args:
        sources: Videos, as from :func:`.list_sources`.
        build: Builds the inferencer.
        out: Folder of the files.
        shard: Detect in the share I, from 0, of N shares of the videos only.
        draw: Write a copy of each video with the detections drawn into it (.mp4) and a
            picture of who does what when (.png), too.
        table: Write detections.csv, too: a row for each action in all videos.
        overwrite: Detect anew where results are of another model or other options.
        form: Write OUT/FORM/NAME with the tracks, too; one of ``TRACK_FORMATS``.
        options: Arguments of :meth:`.ActionDetInferencer.detect`.

    Raises:
        UserError: the folder cannot be written to, or has results of another model or
            of other options; at the end, if videos have problems.
    """
    sources, csv_file = _absolute(sources), Path(out, 'detections.csv')
    check_writable_dir(out, purpose='folder --out')
    lock_folder(out, purpose='detection', shared=shard[1] > 1)
    if draw:
        folders = {os.path.dirname(file) for s in sources for file in source_files(s)}
        check_no_input([out], folders, purpose='folder --out')
    if table:
        check_own(csv_file, ','.join(COLUMNS))
    files = result_files(out, sources, ('.mp4', '.png') if draw else (), form)
    share = dict(list(files.items())[shard[0] :: shard[1]])
    inferencer, problems = build(), {}
    digest = inferencer.digest(**options)
    read_digest = partial(_read_digest, suffixes=('.mp4',) if draw else (), form=form)
    todo = choose_unfinished(share, read_digest, digest, overwrite=overwrite)
    for source, file in tqdm(todo.items(), unit='video'):
        version = source_version(source)  # before it is read
        vis_file = dict(vis_file=file.with_suffix('.mp4')) if draw else {}
        detections = _detect(inferencer, source, {**options, **vis_file})
        if detections.error is None:
            if draw and detections.tubes is not None:
                detections.plot_timeline(file.with_suffix('.png'))
            if form:
                _write_tracks(detections, file, form)
            # The last file: then the video is finished.
            replace(detections, **version, made_with=digest).save(file)
        problems[source] = _problem_of(detections)
        _tell(source, problems[source] if len(todo) > 1 else None)
    if table:
        write_rows(csv_file, _list_rows(files, digest), with_ids=True)
    _raise_problems(problems)


def result_files(
    out: str | Path,
    sources: list[str],
    suffixes: Iterable[str] = (),
    form: str | None = None,
) -> dict[str, Path]:
    """JSON file of each video: named like it, with a checksum where others are, too.

    Args:
        out: Folder of the files.
        sources: Paths and URLs of the videos.
        suffixes: Of further files for each video.
        form: Of a file of tracks for each video.
    """
    stems = [re.sub(r'[^\w.-]+', '_', Path(source).stem)[:60] for source in sources]
    files, counts = {}, Counter(stems)
    for source, stem in zip(sources, stems, strict=True):
        file = Path(out, f'{stem}.json')
        if os.path.lexists(file):
            is_free = begins_with(file, _head(source))
        else:
            is_free = not any(map(os.path.lexists, _outputs(file, suffixes, form)))
        if counts[stem] > 1 or not is_free:
            digest = hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
            file = Path(out, f'{stem}-{digest}.json')
        files[source] = file
    return files


def track_file(file: Path, form: str) -> Path:
    """The file with the tracks of the video whose result is in ``file``."""
    return file.parent / form / f'{file.stem}{TRACK_FORMATS[form]}'


def _outputs(file: Path, suffixes: Iterable[str], form: str | None) -> list[Path]:
    """Files beside the result of a video."""
    outputs = [file.with_suffix(suffix) for suffix in suffixes]
    return [*outputs, track_file(file, form)] if form else outputs


def _write_tracks(detections: VideoDetections, file: Path, form: str) -> None:
    path = track_file(file, form)
    path.parent.mkdir(exist_ok=True)
    detections.save(path, form)


def read_finished(file: Path, source: str) -> VideoDetections | None:
    """The result of a video in its present version; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    if not begins_with(file, _head(source)):
        return None
    with blame(f'{file} is damaged', 'it is written anew'):
        detections = VideoDetections.from_dict(json.loads(file.read_bytes()))
        detections.rows()  # which has further needs
    version = source_version(source)
    is_same = all(getattr(detections, key) in (None, version[key]) for key in version)
    return detections if is_same else None


def _read_digest(
    file: Path, source: str, *, suffixes: Iterable[str], form: str | None
) -> str | None:
    """Digest of the model and options of a result; None if any of its files is missing."""
    detections = read_finished(file, source)
    if detections is None or not all(
        path.exists() for path in _outputs(file, suffixes, form)
    ):
        return None
    return detections.made_with or 'by an earlier version'


def _list_rows(files: Mapping[str, Path], digest: str) -> Iterator[dict]:
    """Rows of the results that were made with this model and these options."""
    for source, file in files.items():
        with suppress(UserError):  # it is damaged, and could not be written anew
            detections = read_finished(file, source)
            if detections is not None and detections.made_with == digest:
                yield from detections.rows()


def _head(source: str) -> bytes:
    """First bytes of the result of a video."""
    return (HEAD + json.dumps(name_source(source))).encode()


def _absolute(sources: Iterable[str]) -> list[str]:
    """Sources without repetitions, with paths that are valid in any folder."""
    absolute = (
        source if is_live(source) else os.path.abspath(source) for source in sources
    )
    return list(dict.fromkeys(absolute))


def _detect(
    inferencer: ActionDetInferencer, source: str, options: Mapping[str, Any]
) -> VideoDetections:
    """Detections in a video; any error is in their ``error``."""
    try:
        return inferencer.detect(source, **options)
    except Exception as error:
        return VideoDetections(source=name_source(source), error=tell(error))


def _problem_of(detections: VideoDetections) -> str | None:
    if detections.error is not None:
        return f'failed ({detections.error})'
    if not detections.damage:
        return None
    reasons = detections.damage_reasons or ['no reason known']
    return f'damaged, done in part ({reasons[0]})'


def _tell(video: str, problem: str | None) -> None:
    if problem:
        tqdm.write(f'{name_source(video)}: {problem}', file=sys.stderr)


def _raise_problems(problems: Mapping[str, str | None]) -> None:
    """Raise the problems of videos; None where a video has none."""
    bad = {video: problem for video, problem in problems.items() if problem}
    if len(problems) == len(bad) == 1:
        ((video, problem),) = bad.items()
        raise UserError(f'{name_source(video)}: {problem}')
    if bad:
        raise UserError(
            f'{len(bad)} of {len(problems)} videos had problems (listed above).'
        )


def detect_with_ray(
    sources: Iterable[str],
    build: Build,
    out: str,
    form: Literal['json', 'parquet'] = 'json',
    *,
    address: Annotated[
        str | None, dict(flag='--ray', nargs='?', const='local', metavar='ADDRESS')
    ] = None,
    cpus_per_worker: Count = 1,
    **options,
) -> None:
    """Detect in videos by workers of a Ray cluster, and write a row for each video.

    Args:
        sources, build, options: See :func:`detect_videos`.
        out: Any place that pyarrow knows, such as a folder or ``s3://…``.
        form: Of the data set: JSON lines or Parquet.
        address: Use workers of this Ray cluster ('auto': of the running one); without
            ADDRESS, Ray is started on this machine, for this machine alone.
        cpus_per_worker: Cores of each worker with --ray.

    Raises:
        UserError: no cluster or place; at the end, if videos have problems.
    """
    videos, work = _absolute(sources), (build, options)
    _connect(address or 'local')
    try:
        outcomes = _write_data_set(videos, work, out, form, cpus_per_worker)
    finally:
        import ray

        ray.shutdown()
    problems = dict.fromkeys(videos, 'failed (ended its worker)') | outcomes
    if len(problems) > 1:
        for video, problem in problems.items():
            _tell(video, problem)
    _raise_problems(problems)


def _connect(address: str) -> None:
    """Join a cluster, or start one of this machine alone."""
    if address == 'local':
        # To be set before the import. Else all processes listen on all interfaces.
        os.environ['RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'] = '0'
    with blame('--ray needs Ray', "pip install 'stmixer_mm[ray]', or leave --ray out"):
        import ray
    subject, remedy = f'--ray {address}: no cluster answers', 'start Ray there'
    if address != 'local' and not _answers(address):
        raise UserError(f'{subject}; correct it, or {remedy}.')
    with blame(subject, remedy):
        ray.init(address, include_dashboard=False, log_to_driver=False)


def _answers(address: str) -> bool:
    """True if a cluster can be joined; tried in a process, as Ray waits for minutes."""
    command = [sys.executable, '-c', f'import ray; ray.init({address!r})']
    with suppress(subprocess.TimeoutExpired):
        return not subprocess.run(
            command, capture_output=True, timeout=ANSWER_S
        ).returncode
    return False


def _write_data_set(
    videos: list[str],
    work: tuple[Build, dict],
    out: str,
    form: str,
    cpus_per_worker: int,
) -> dict[str, str | None]:
    """Let Ray detect and write; problems by video, None where there is none."""
    import ray
    from ray.util.queue import Queue

    resources, outcomes = ray.cluster_resources(), Queue()
    gpus = int(resources.get('GPU', 0))
    room = gpus or int(resources.get('CPU', 0)) // cpus_per_worker
    ray.data.DataContext.get_current().max_errored_blocks = -1  # ended their workers
    with blame('Ray stopped', 'run the same command again'), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # max_task_retries has no other name yet
        data_set = ray.data.from_items(
            [dict(video=os.fsencode(video)) for video in videos],
            override_num_blocks=min(len(videos), _MAX_BLOCKS),
        ).map_batches(
            _Worker,
            fn_constructor_args=(outcomes, *work),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=max(1, min(room, len(videos))),
                max_tasks_in_flight_per_actor=1,  # or a dead one loses several
            ),
            num_cpus=cpus_per_worker,
            num_gpus=1 if gpus else 0,
            max_task_retries=_RETRIES,
        )
        {'json': data_set.write_json, 'parquet': data_set.write_parquet}[form](out)
    return dict(outcomes.get_nowait_batch(outcomes.qsize()))


class _Worker:
    """Maps a batch of one video to a row of detections, in an actor."""

    def __init__(self, outcomes: Any, build: Build, options: dict) -> None:
        self._inferencer, self._outcomes, self._options = build(), outcomes, options

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        video = os.fsdecode(batch['video'][0])
        detections = _detect(self._inferencer, video, self._options)
        self._outcomes.put((video, _problem_of(detections)))
        return arrow_table(detections)
