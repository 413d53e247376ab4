"""Detection in many videos, each once, by one process or by many.

What was found in a video is one file, whole or not there. So whatever stops a run costs
only the videos in progress, and the next run does those without a file. Ray Data's own
writers do not help: their files hold blocks of many videos, which a killed process
leaves half written, and only reading a file tells which videos it holds.
"""

import hashlib
import json
import logging
import os
import pickle
import re
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

import torch
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from mmengine.device import get_device
from tqdm import tqdm

import stmixer_mm
from stmixer_mm.apis.inferencer import ActionDetInferencer
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.datasets.streams import is_live
from stmixer_mm.errors import UserError, at_end, blame, tell
from stmixer_mm.files import check_writable_dir, write_atomically
from stmixer_mm.projects.export.formats import files_of, format_of
from stmixer_mm.structures import VideoDetections

FORMATS = ('jsonl', 'parquet')
_FOLDER, _SETTINGS, _REPORT = 'detections', 'settings.json', 'report{}.json'
_RANKS = (('RANK', 'WORLD_SIZE'), ('SLURM_PROCID', 'SLURM_NTASKS'))
_ANSWER_S = 10.0  # until an address counts as one where nobody answers
_MAX_BLOCKS = 10_000  # of a Ray data set; up to here each video is one
_RETRIES = 2  # of a video at which a worker died


@dataclass(frozen=True)
class Job:
    """What is done with each video.

    Attributes:
        model, weights, label_file, cfg_options, fast: Of :class:`.ActionDetInferencer`.
        out: Where results go: a folder, or any place that fsspec knows (``s3://…``).
        form: One of ``FORMATS``.
        options: Arguments of :meth:`.ActionDetInferencer.stream`.
    """

    model: str
    weights: str
    out: str
    form: str = 'jsonl'
    label_file: str | None = None
    cfg_options: dict = field(default_factory=dict)
    fast: bool = False
    options: dict = field(default_factory=dict)

    def moved(self) -> 'Job':
        """The same job, with paths valid in any folder."""
        paths = {
            name: os.path.abspath(value)
            for name in ('model', 'weights', 'label_file')
            if (value := getattr(self, name)) and os.path.exists(value)
        }
        return replace(self, **paths)


class Outcome(NamedTuple):
    """What became of a video."""

    video: str
    keyframes: int = 0
    error: str | None = None  # why there are no results
    is_damaged: bool = False  # some of it was left out


class ResultFolder:
    """A file for each video, in a place that fsspec knows.

    Raises:
        UserError: fsspec does not know such a place.
    """

    def __init__(self, url: str, form: str) -> None:
        self._url, self._form = url, form
        with blame(
            f'--out {url} cannot be opened', 'correct it or install what it needs'
        ):
            self._files, path = url_to_fs(url)
        self._path = path.rstrip('/')
        self._is_local = isinstance(self._files, LocalFileSystem)

    def prepare(self) -> None:
        """``UserError`` if it cannot be written to."""
        folder = f'{self._path}/{_FOLDER}'
        if self._is_local:
            check_writable_dir(self._path, purpose='folder --out')
            check_writable_dir(folder, purpose='folder --out')
            return
        remedy = 'choose another place or make it writable'
        with blame(f'--out {self._url} cannot be written to', remedy):
            self._files.makedirs(folder, exist_ok=True)
            self.write('.writable', b'.')
            self._files.rm(f'{self._path}/.writable')

    def keep_settings(self, settings: dict) -> None:
        """Note the settings that all results here are made with.

        Raises:
            UserError: results that are here already were made with others.
        """
        path = f'{self._path}/{_SETTINGS}'
        settings = json.loads(json.dumps(settings))
        if not self._files.exists(path):
            self.write(_SETTINGS, (json.dumps(settings, indent=2) + '\n').encode())
            return
        with blame(f'{path} cannot be read', 'choose another --out'):
            there = dict(json.loads(self._files.cat_file(path)))
        names = sorted({*there, *settings})
        if others := [one for one in names if there.get(one) != settings.get(one)]:
            raise UserError(
                f'--out {self._url} holds results that were made with other settings '
                f'({", ".join(others)}: see {_SETTINGS} there); give them back, or '
                'choose another --out.'
            )

    def file_of(self, source: str) -> str:
        """A source's file: the same in each run, and no other source's."""
        digest = hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
        stem = re.sub(r'[^\w.-]+', '_', Path(source).stem, flags=re.ASCII)[:60]
        return f'{_FOLDER}/{stem}-{digest}.{self._form}'

    def finished(self) -> set[str]:
        files = self._files.ls(f'{self._path}/{_FOLDER}', detail=False)
        return {f'{_FOLDER}/{os.path.basename(file)}' for file in files}

    def __contains__(self, file: str) -> bool:
        return self._files.exists(f'{self._path}/{file}')

    def write(self, file: str, data: bytes) -> None:
        path = f'{self._path}/{file}'
        if self._is_local:  # fsspec moves a file from another disk, which is not atomic
            write_atomically(path, data)
            return
        with self._files.transaction, self._files.open(path, 'wb') as part:
            part.write(data)

    def write_detections(self, file: str, found: VideoDetections) -> None:
        if self._form == 'jsonl':
            self.write(file, (json.dumps(found.to_dict()) + '\n').encode())
            return
        with TemporaryDirectory() as folder:
            part = Path(folder, f'found.{self._form}')
            found.save(part)
            self.write(file, part.read_bytes())


class VideoWorker:
    """Does a job on one video after the other.

    Raises:
        UserError: the model cannot be built.
    """

    def __init__(
        self, job: Job, device: str | None, classes: Sequence[str] | None = None
    ) -> None:
        self._job = job
        self._results = ResultFolder(job.out, job.form)
        self._inferencer = ActionDetInferencer(
            job.model,
            job.weights,
            device,
            label_file=job.label_file,
            cfg_options=job.cfg_options,
            fast=job.fast,
            show_progress=False,
        )
        # Another machine may not have the config's label map.
        self._inferencer.model.classes = classes or self._inferencer.model.classes

    @property
    def classes(self) -> Sequence[str] | None:
        return self._inferencer.model.classes

    def settings(self) -> dict:
        """What the results depend on, except for rounding."""
        cfg, job = self._inferencer.model.cfg, self._job
        pipeline = next(dataset_configs(cfg, 'test'), {}).get('pipeline')
        model = {key: value for key, value in cfg.model.items() if key != 'file'}
        config = json.dumps([model, pipeline], default=str, sort_keys=True)
        checkpoint = job.weights
        if os.path.isfile(checkpoint):
            digest = hashlib.sha256()
            for part in files_of(Path(checkpoint), format_of(checkpoint)):
                with open(part, 'rb') as file:
                    while block := file.read(2**20):
                        digest.update(block)
            checkpoint = digest.hexdigest()
        return dict(
            stmixer_mm=stmixer_mm.__version__,
            config=hashlib.sha256(config.encode()).hexdigest(),
            checkpoint=checkpoint,
            classes=self.classes,
            format=job.form,
            fast=job.fast,
            **{k: v for k, v in job.options.items() if k != 'batch_size'},
        )

    def detect(self, source: str) -> Outcome:
        """Write a video's results, unless they are there; never raises."""
        try:
            file = self._results.file_of(source)
            if file in self._results:
                return Outcome(source)
            found = self._inferencer.detect(source, **self._job.options)
            if found.error is None:
                self._results.write_detections(file, found)
            return Outcome(
                source, len(found.keyframes), found.error, bool(found.damage)
            )
        except Exception as error:
            return Outcome(source, error=tell(error))


class _RayWorker(VideoWorker):
    """The same for the rows of a Ray data set, in an actor."""

    def __call__(self, row: dict) -> dict:
        # Arrow's strings cannot hold every file name.
        return dict(outcome=pickle.dumps(self.detect(os.fsdecode(row['video']))))


def rank_of_process() -> tuple[int, int]:
    """This process's number and how many there are, from torchrun or Slurm.

    Raises:
        UserError: the numbers in the environment do not fit.
    """
    for names in _RANKS:
        if all(name in os.environ for name in names):
            said = ' '.join(f'{name}={os.environ[name]}' for name in names)
            with blame(f'{said}: there is no such process', 'count from RANK=0'):
                rank, size = (int(os.environ[name]) for name in names)
                if not 0 <= rank < size:
                    raise ValueError('the rank is not below the count')
            return rank, size
    return 0, 1


def _device_of_process() -> str:
    """The accelerator for this process's local rank, else the CPU."""
    if not torch.cuda.is_available():
        return get_device()
    local = os.environ.get('LOCAL_RANK') or os.environ.get('SLURM_LOCALID') or '0'
    return f'cuda:{int(local) % torch.cuda.device_count()}'


def _wait_for_all() -> None:
    """Else torchrun kills all as soon as one process ends with an error."""
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        from torch import distributed

        distributed.init_process_group('gloo', timeout=timedelta(days=100))
        distributed.barrier()
        distributed.destroy_process_group()


def detect_videos(
    sources: Iterable[str],
    job: Job,
    *,
    device: str | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
) -> None:
    """Detect in each video that has no results yet, and say what became of it.

    Args:
        sources: From :func:`.list_sources`.
        job: What to do.
        device: Such as 'cpu'; by default the accelerator that is there, of several the
            one for this process's rank.
        ray_address: Of a Ray cluster; 'local' starts one on this machine, '' takes the
            one that runs here or starts it. None: no Ray; this process does its rank's
            share of the videos.
        workers: Most actors; by default one for each GPU, without GPUs one for each
            ``cpus_per_worker`` cores.
        cpus_per_worker: Cores of an actor.

    Raises:
        UserError: nothing can be done; or at the end, some videos failed.
    """
    sources = [one if is_live(one) else os.path.abspath(one) for one in sources]
    sources = list(dict.fromkeys(sources))
    by_ray = ray_address is not None
    rank, size = (0, 1) if by_ray else rank_of_process()
    job = job.moved()
    results = ResultFolder(job.out, job.form)
    if job.form == 'parquet':
        with blame('Parquet cannot be written', "pip install 'stmixer_mm[ray]'"):
            import pyarrow.parquet  # noqa: F401
    if by_ray:
        _connect(ray_address)
    results.prepare()
    # All processes must agree on the shares, so these cannot depend on what is done.
    share = sources[rank::size]
    worker = VideoWorker(job, 'cpu' if by_ray else device or _device_of_process())
    results.keep_settings(worker.settings())
    finished = results.finished()
    todo = [one for one in share if results.file_of(one) not in finished]
    of_many = f'process {rank} of {size}: ' if size > 1 else ''
    print(f'{of_many}{len(todo)} videos to do, {len(share) - len(todo)} done before')
    if by_ray:
        classes = worker.classes
        del worker
        outcomes = _detect_by_ray(
            todo, (job, device, classes), workers, cpus_per_worker, device == 'cpu'
        )
    else:
        outcomes = map(worker.detect, todo)
    report = _Report(len(todo), len(share) - len(todo))
    try:
        with closing(
            tqdm(total=len(todo), desc=of_many + 'videos', unit='video')
        ) as bar:
            for outcome in outcomes:
                report.add(outcome, bar)
        report.add_lost(todo, bar)
    finally:
        name = _REPORT.format(f'-{rank}-of-{size}' if size > 1 else '')
        results.write(name, (json.dumps(report.to_dict(), indent=2) + '\n').encode())
    print(of_many + report.summary())
    print(f'{of_many}detections: {job.out}/{_FOLDER}, report: {job.out}/{name}')
    _wait_for_all()
    report.raise_faults(f'{job.out}/{name}')


class _Report:
    """What became of the videos of a run."""

    def __init__(self, total: int, finished_before: int) -> None:
        self._total, self._before = total, finished_before
        self._seen: set[str] = set()
        self._failed: list[dict] = []
        self._damaged: list[str] = []
        self._keyframes = 0
        self._start = time.perf_counter()

    def add(self, outcome: Outcome, bar: tqdm) -> None:
        video, keyframes, error, is_damaged = outcome
        self._seen.add(video)
        self._keyframes += keyframes
        if error:
            self._failed.append(dict(video=video, error=error))
            name = '' if video in error else f'{video}: '
            bar.write(f'failed: {name}{error}', file=sys.stderr)
        elif is_damaged:
            self._damaged.append(video)
            bar.write(f'damaged: {video}', file=sys.stderr)
        bar.set_postfix_str(f'{self._keyframes} keyframes, {len(self._failed)} failed')
        bar.update()

    def add_lost(self, videos: Iterable[str], bar: tqdm) -> None:
        """Note the videos that no worker reported on, because it died each time."""
        for video in videos:
            if video not in self._seen:
                error = (
                    f'{video} ended its worker {_RETRIES + 1} times; see whether it '
                    'decodes and fits into RAM.'
                )
                self.add(Outcome(video, error=error), bar)

    def to_dict(self) -> dict:
        return dict(
            videos=self._total,
            finished_before=self._before,
            finished=len(self._seen) - len(self._failed),
            keyframes=self._keyframes,
            seconds=round(time.perf_counter() - self._start, 1),
            failed=self._failed,
            damaged=self._damaged,
        )

    def summary(self) -> str:
        seconds = time.perf_counter() - self._start
        done = len(self._seen) - len(self._failed)
        return (
            f'{done} of {self._total} videos, {self._keyframes} keyframes in '
            f'{seconds:.1f} s: {done / seconds:.2f} videos/s, '
            f'{self._keyframes / seconds:.2f} keyframes/s'
        )

    def raise_faults(self, report: str) -> None:
        """Raises ``UserError`` if there are any."""
        faults = []
        if self._failed:
            faults.append(f'{len(self._failed)} failed')
        if self._damaged:
            faults.append(f'{len(self._damaged)} are damaged and were done in part')
        if faults:
            raise UserError(
                f'Of {self._total} videos {" and ".join(faults)}; {report} names them, '
                'and the same command does again those that failed.'
            )


def _connect(address: str) -> None:
    """Start Ray, or join a Ray cluster."""
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"--ray needs Ray ({error}); pip install 'stmixer_mm[ray]', or leave --ray "
            'out.'
        ) from None
    address = address or os.environ.get('RAY_ADDRESS', '')
    remedy = (
        'correct it, start Ray there, or set RAY_AUTH_MODE=token if it asks for one'
    )
    stop = signal.getsignal(signal.SIGTERM)
    with blame(f'--ray {address or "(no address)"}: no cluster answers', remedy):
        if ':' in address:  # Ray itself takes minutes
            host = urlsplit(address if '://' in address else f'//{address}')
            socket.create_connection((host.hostname, host.port), _ANSWER_S).close()
        ray.init(
            address or None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    at_end.callback(ray.shutdown)
    signal.signal(signal.SIGTERM, stop)  # Ray has set a handler of its own


def _detect_by_ray(
    videos: Sequence[str],
    worker: tuple,
    workers: int | None,
    cpus: int,
    without_gpus: bool,
) -> Iterator[Outcome]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    if not videos:
        return
    machines = [one['Resources'] for one in ray.nodes() if one['Alive']]
    gpus = 0 if without_gpus else sum(int(one.get('GPU', 0)) for one in machines)
    room = gpus or sum(int(one.get('CPU', 0)) // cpus for one in machines)
    if not room and workers is None:
        raise UserError(f'--cpus-per-worker {cpus}: no machine has so many cores.')
    count = min(workers or room, len(videos))
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # those at which a worker died each time
    logging.getLogger('ray.data').setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        # There is no other name for ``max_task_retries`` yet.
        warnings.simplefilter('ignore')
        dataset = ray.data.from_items(
            [dict(video=os.fsencode(video)) for video in videos],
            override_num_blocks=min(len(videos), _MAX_BLOCKS),
        ).map(
            _RayWorker,
            fn_constructor_args=worker,
            compute=ActorPoolStrategy(
                min_size=1,
                max_size=count,
                initial_size=max(1, min(count, room)),
                max_tasks_in_flight_per_actor=1,
            ),
            num_cpus=cpus,
            num_gpus=1 if gpus else 0,
            max_task_retries=_RETRIES,
        )
    with blame('Ray stopped', 'run the same command again'):
        try:
            for row in dataset.iter_rows():
                yield pickle.loads(row['outcome'])
        except ray.exceptions.RayError as error:
            if f'.{UserError.__name__}: ' in str(error):  # from building the model
                raise UserError(str(error)) from error
            raise
