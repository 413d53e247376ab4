"""Banks of many videos: a file for each, whole or not there."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from tqdm import tqdm

from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.inferencer import NMS_THR, ActionDetInferencer, ModelOptions
from stmixer_mm.apis.predict import predict
from stmixer_mm.command_line import (
    Count,
    Overrides,
    Positive,
    Score,
    Shard,
    overrides,
)
from stmixer_mm.datasets.streams import list_sources, open_source
from stmixer_mm.engine.speed import speed_up
from stmixer_mm.errors import UserError, tell
from stmixer_mm.files import (
    check_own,
    check_writable_dir,
    lock_folder,
)
from stmixer_mm.models.detectors.stmixer import STMixer
from stmixer_mm.projects.common.unfinished import choose_unfinished, source_version
from stmixer_mm.projects.memory.bank import (
    BANK_HEAD,
    bank_name,
    detector_key,
    read_bank,
    write_bank,
)
from stmixer_mm.projects.memory.long_term_actions import PersonVectors


def extract(
    config: str,
    checkpoint: str,
    videos: Annotated[list[str], dict(nargs='+')],
    *,
    out: str,
    interval_s: Positive = 1.0,
    nms_thr: Score = NMS_THR,
    batch_size: Count = 1,
    shard: Shard = (0, 1),
    overwrite: bool = False,
    device: str | None = None,
    model: ModelOptions,
    settings: Overrides,
) -> None:
    """Write the banks of videos: vectors of the persons found, for a memory.

    Each video gets a file in OUT; started again, videos that have one and did not
    change are skipped. A video that cannot be read is reported on one line; the exit
    status is then 1.

    Args:
        config: Config file, or the name of one in configs/.
        checkpoint: Checkpoint file or URL.
        videos: Videos, folders of videos, text files with one in each line.
        out: Folder of the banks, which have the names of their videos.
        interval_s: Seconds between keyframes.
        nms_thr: Of persons whose boxes overlap more, keep the highest-scoring; 1: all.
        batch_size: Clips that the model sees at once.
        shard: Only the share I, from 0, of N shares of the videos.
        overwrite: Write banks of another model or of other options anew.
        device: Such as cpu or cuda:0; by default the GPU if there is one.

    Raises:
        UserError: the model has no such vectors, or OUT has banks of another one or of
            other options; at the end, if videos have problems.
    """
    files = bank_files(out, list_sources(videos))
    check_writable_dir(out, purpose='folder --out')
    lock_folder(out, purpose='extraction', shared=shard[1] > 1)
    for file in files.values():
        check_own(file, BANK_HEAD, offset=8)
    is_fast = model.pop('fast')
    options = dict(cfg_options=overrides(**settings), show_progress=False)
    inferencer = ActionDetInferencer(config, checkpoint, device, **model, **options)
    detector, steps = inferencer.model, dict(interval_s=interval_s, nms_thr=nms_thr)
    about = dict(key=detector_key(detector), classes=detector.classes)
    about['made_with'] = inferencer.digest(**steps)
    add_vectors(detector)
    if is_fast:
        speed_up(detector)
    share = dict(list(files.items())[shard[0] :: shard[1]])
    todo = choose_unfinished(
        share, read_digest, about['made_with'], overwrite=overwrite
    )
    extract_videos(detector, todo, about, batch_size=batch_size, **steps)


def extract_videos(
    detector: STMixer, files: Mapping[str, Path], about: dict, **options
) -> None:
    """Write the bank of each video; ``UserError`` at the end if any has a problem."""
    problems = 0
    for video, file in tqdm(files.items(), unit='video'):
        if problem := extract_video(detector, video, file, about, **options):
            problems += 1
            tqdm.write(f'{video}: {problem}', file=sys.stderr)
    if problems:
        raise UserError(
            f'{problems} of {len(files)} videos had problems (listed above).'
        )


def extract_video(
    detector: STMixer,
    video: str,
    file: Path,
    about: dict,
    *,
    interval_s: float,
    **options,
) -> str | None:
    """Write the bank of a video; what is wrong with it, if anything."""
    damages, loader = [], ClipLoader(detector.cfg)
    options |= dict(on_damage=damages.append, reuse='never')
    try:
        about = about | source_version(video)  # before it is read
        source = open_source(video, on_damage=damages.append)
        clips = loader.cut(source, interval_s=interval_s)
        keyframes = [
            (
                clip.time_s,
                instances.person_vectors.half(),
                instances.bboxes,
                instances.person_scores,
            )
            for clip, instances in predict(detector, loader, clips, **options)
        ]
        write_bank(file, keyframes, about, width=2 * detector.decoder.embed_dims)
    except Exception as error:
        return f'failed ({tell(error)})'
    return f'damaged, done in part ({damages[0]})' if damages else None


def bank_files(out: str, videos: Sequence[str]) -> dict[str, Path]:
    """The bank of each video; ``UserError`` where two would share one."""
    files: dict[Path, str] = {}
    for video in dict.fromkeys(map(str, videos)):
        file = Path(out, bank_name(video))
        if other := files.get(file):
            raise UserError(
                f'{other} and {video} would share the bank {file}, as annotations name '
                'videos without their folders; rename one, or give each an --out.'
            )
        files[file] = video
    return {video: file for file, video in files.items()}


def read_digest(file: Path, video: str) -> str | None:
    """Digest of model and options of a bank; None if it is missing or outdated."""
    if not file.exists():
        return None
    about = read_bank(file, remedy='it is written anew').about
    is_same = about.items() >= source_version(video).items()
    return about.get('made_with', 'by an earlier version') if is_same else None


def add_vectors(detector: STMixer) -> None:
    """Make predictions have what a bank keeps of each person."""
    if not isinstance(detector, STMixer):
        raise UserError(
            f'Banks are of the query vectors of an STMixer, which a '
            f'{type(detector).__name__} has not; give the config of one.'
        )
    sizes = dict(detector.decoder.sizes, num_classes=detector.num_classes)
    detector.person_vectors = PersonVectors(**sizes)
    detector.decoder.check_readers(detector.person_vectors)
