"""Train on a folder of videos and annotations, in one go."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stmixer_mm.command_line import Positive, run_main
from stmixer_mm.datasets.annotations.ava_csv import read_label_names
from stmixer_mm.errors import UserError
from stmixer_mm.files import write_atomically
from stmixer_mm.projects.annotate.convert import convert_annotations, read_file

TOOLS = Path(__file__).resolve().parent
SPLITS = 'train', 'val'
CONFIG = """\
# Written by `stmixer own`; change it, then `stmixer train {config}`.
_base_ = 'stmixer_mm::small/stmixer-n-maps_1xb8-4x8x1-20e_own-rgb.py'
# {count} actions of action_list.pbtxt; class 0 is unused.
model = dict(neck=dict(num_actions={count}), head=dict(num_classes={num_classes}))
folder = dict(data_root={folder!r})
videos = dict(data_prefix=dict(img={videos!r}), **folder)
train_dataloader = val_dataloader = test_dataloader = dict(dataset=videos)
val_evaluator = test_evaluator = folder
# If left and right are actions, mirror no clip:
# train_pipeline = [
#     step for step in _base_.train_pipeline if step['type'] != 'mmaction.Flip'
# ]
# train_dataloader = dict(dataset=dict(videos, pipeline=train_pipeline))
"""


def main(
    folder: str,
    *,
    every: Positive = 1,
    attributes: list[str] | None = None,
    idle: str | None = None,
    no_train: bool = False,
) -> None:
    """Train on a folder of videos and annotations, in one go.

    Takes the videos in FOLDER/videos or FOLDER, and files of CVAT, COCO or Label Studio
    anywhere in FOLDER: those below train and val as they are; else every fifth video is
    one to evaluate on. Writes csv files, a label map, the config FOLDER/own.py and a
    picture of what the network will see; checks all of it, then trains from the model
    in this package. What is there is used: the same command goes on after an
    interruption.

    Args:
        folder: With the videos and annotations.
        every: Seconds from keyframe to keyframe.
        attributes: Attributes that hold actions; by default all.
        idle: Action of persons that do nothing; otherwise their keyframes are left out.
        no_train: Stop before the training.

    Raises:
        UserError: the folder has no annotation, or of a single video only.
    """
    folder = Path(folder)
    videos = 'videos' if (folder / 'videos').is_dir() else '.'
    options = dict(
        videos=str(folder / videos), every=every, attributes=attributes, idle=idle
    )
    outs = {split: folder / f'{split}.csv' for split in SPLITS}
    if not all(out.is_file() for out in outs.values()):
        for split, files, names in split_annotations(folder):
            if not outs[split].is_file():
                out = str(outs[split])
                print(convert_annotations(files, out=out, only=names, **options))
    config = folder / 'own.py'
    if not config.exists():
        count = max(read_label_names(str(folder / 'action_list.pbtxt')))
        text = CONFIG.format(
            config=config,
            count=count,
            num_classes=count + 1,
            folder=os.fspath(folder),
            videos=videos,
        )
        write_atomically(config, text.encode())
    run_verb('check', config)
    run_verb('browse', config, '--sheet', folder / 'train.jpg')
    if not no_train:
        run_verb('train', config, '--resume')


def split_annotations(folder: Path) -> list[tuple[str, list[str], list[str] | None]]:
    """Files and names of videos (None: all) of the splits ``train`` and ``val``."""
    files = [*folder.rglob('*.xml'), *folder.rglob('*.json')]
    files = sorted(file for file in files if not file.name.endswith('_masks.json'))
    if not files:
        raise UserError(
            f'{folder} has no annotation: neither train.csv and val.csv nor files of '
            'CVAT (.xml), COCO or Label Studio (.json); put them there.'
        )
    by_split = {
        split: [str(file) for file in files if split in file.relative_to(folder).parts]
        for split in SPLITS
    }
    if all(by_split.values()):
        return [(split, by_split[split], None) for split in SPLITS]
    paths = [str(file) for file in files]
    annotated_videos = [
        video for path in paths for video in read_file(path, Counter()).videos
    ]
    names = split_names(sorted({video.names[0] for video in annotated_videos}))
    if not names[0]:
        raise UserError(
            f'{folder} has annotations of a single video, {names[1][0]}; annotate '
            'another one to evaluate on.'
        )
    return [(split, paths, part) for split, part in zip(SPLITS, names, strict=True)]


def split_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names to train on, and every fifth, at least the last, to evaluate on."""
    val = list(names[4::5]) or list(names[-1:])
    return [name for name in names if name not in val], val


def run_verb(verb: str, *arguments: str | Path) -> None:
    """Run another verb; its failure ends this one."""
    print(f'\nstmixer {verb} {" ".join(map(str, arguments))}', flush=True)
    command = [sys.executable, TOOLS / 'cli.py', verb, *arguments]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


if __name__ == '__main__':
    run_main(main)
