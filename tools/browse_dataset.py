"""Draw what the network will see of a dataset: clips after augmentation, with boxes."""

from pathlib import Path
from typing import Literal

from stmixer_mm.apis.config import check_arguments, config_files, load_config
from stmixer_mm.command_line import CfgOptions, Count, Seed, run_main
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.errors import UserError
from stmixer_mm.files import check_writable_dir, check_writable_file
from stmixer_mm.registry import DATASETS
from stmixer_mm.visualization.draw import enlarge, side_by_side, write_picture
from stmixer_mm.visualization.visualizer import (
    describe_states,
    draw_ground_truth,
    keyframe_entry,
)

import numpy as np
from torch import Tensor

SUFFIXES = ('.jpg', '.jpeg', '.png')
SHEET_WIDTH = 1800
GAP = 8


def spread(lengths: list[int], number: int) -> list[tuple[int, int]]:
    """Dataset and index of ``number`` samples, evenly spaced over all of them."""
    places = [(part, i) for part, length in enumerate(lengths) for i in range(length)]
    chosen = np.linspace(0, len(places) - 1, min(number, len(places)))
    return [places[index] for index in chosen.round().astype(int)]


def clip_frames(inputs: object) -> np.ndarray:
    """Frames (T, h, w, 3) uint8 of what a pipeline packs.

    Raises:
        UserError: It packs no clips.
    """
    if isinstance(inputs, dict):
        inputs = inputs.get('imgs')
    if isinstance(inputs, Tensor) and inputs.ndim == 5:  # (clips, 3, T, h, w)
        inputs = inputs[0]
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or len(inputs) != 3:
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs)
        raise UserError(
            f'The pipeline packs {shape} instead of clips (3, T, h, w); end it with '
            "mmaction.FormatShape(input_format='NCTHW', collapse=True)."
        )
    frames = inputs.permute(1, 2, 3, 0).numpy()
    if frames.dtype != np.uint8:  # normalised: show it in its own range
        low, high = frames.min(), frames.max()
        frames = (255 * (frames - low) / max(high - low, 1e-6)).astype(np.uint8)
    return np.ascontiguousarray(frames)


def draw_sample(
    sample: dict, classes: list[str] | None, *, with_clip: bool = False
) -> np.ndarray:
    """The keyframe of a packed sample (h, w, 3) RGB, boxes, labels and name on it.

    Small frames are enlarged. With the clip, its frames stand side by side in order;
    with tubelets each has its boxes, and a legend of absent and unknown persons.
    """
    frames = clip_frames(sample.get('inputs'))
    data_sample = sample['data_samples']
    truth = data_sample.get('gt_instances')
    key = keyframe_entry(data_sample, len(frames))
    is_of_clip = truth is not None and 'states' in truth
    tiles, headings = [], []
    for entry in range(len(frames)) if with_clip else [key]:
        tile, factor = enlarge(frames[entry])
        if is_of_clip or (truth is not None and entry == key):
            tile = draw_ground_truth(tile, truth, classes, scale=factor, entry=entry)
        name = data_sample.get('img_key', '') if entry == key else ''
        heading = [(name, None)]
        if is_of_clip:
            number = f'frame {data_sample.clip_frames[entry]}'
            heading += [(number, None), *describe_states(truth, entry)]
        tiles.append(tile)
        headings.append(heading)
    return side_by_side(tiles, headings)


def contact_sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures (h, w, 3) in a grid of about ``SHEET_WIDTH`` pixels."""
    height, width = np.max([picture.shape[:2] for picture in pictures], axis=0) + GAP
    columns = max(1, min(SHEET_WIDTH // width, len(pictures)))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        y, x = number // columns * height, number % columns * width
        sheet[y : y + len(picture), x : x + picture.shape[1]] = picture
    return sheet


def main(
    config: str,
    *,
    split: Literal['train', 'val', 'test'] = 'train',
    number: Count = 16,
    clip: bool = False,
    seed: Seed = 0,
    out: str | None = None,
    sheet: str | None = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Draw what the network will see of a dataset: clips after augmentation, with boxes.

    The frame drawn is the keyframe, or with ahead_s the last one seen before it.

    Args:
        config: Config file.
        split: Of the dataset.
        number: Keyframes to draw, spread evenly over the dataset.
        clip: Draw all frames of the clips, not only one.
        seed: Of the augmentation.
        out: Folder to write a picture of each keyframe to, instead of a sheet.
        sheet: File of the contact sheet; by default browse_SPLIT.jpg in the work dir.
    """
    cfg = load_config(config, cfg_options)
    check_arguments(cfg)
    work_dir = cfg.get('work_dir') or f'work_dirs/{Path(config).stem}'
    sheet = sheet or Path(work_dir, f'browse_{split}.jpg')
    if out:
        check_writable_dir(out, purpose='folder --out')
    else:
        inputs = config_files(cfg)
        check_writable_file(sheet, purpose='--sheet', suffixes=SUFFIXES, inputs=inputs)
    datasets = [DATASETS.build(config) for config in dataset_configs(cfg, split)]
    if not datasets:
        raise UserError(
            f'The config has no dataset for {split}; choose another --split.'
        )
    np.random.seed(seed)
    places = spread([len(dataset) for dataset in datasets], number)
    pictures = [
        draw_sample(
            datasets[part][index],
            datasets[part].metainfo.get('classes'),
            with_clip=clip,
        )
        for part, index in places
    ]
    if out:
        for index, picture in enumerate(pictures):
            write_picture(Path(out, f'{index:04}.jpg'), picture)
    else:
        write_picture(sheet, contact_sheet(pictures))
    print(f'{len(places)} keyframes: {out or sheet}')


if __name__ == '__main__':
    run_main(main)
