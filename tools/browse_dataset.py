"""Draw what the network will see of a dataset: clips after augmentation, with boxes.

The frame drawn is the keyframe, which the boxes and labels belong to; with ahead_s, the
last one seen before that; for a clip with boxes in each frame, the middle one.
"""

import argparse
from pathlib import Path

from stmixer_mm.checks.config import check_arguments, load_config
from stmixer_mm.checks.options import COUNT, SEED, add_cfg_options
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.files import check_writable_dir, check_writable_file
from stmixer_mm.registry import DATASETS
from stmixer_mm.visualization.draw import (
    enlarge,
    show_pictures,
    side_by_side,
    write_picture,
)
from stmixer_mm.visualization.visualizer import (
    describe_states,
    draw_ground_truth,
    keyframe_entry,
)

import cv2
import numpy as np
from mmengine.config import Config
from torch import Tensor

SUFFIXES = ('.jpg', '.jpeg', '.png')
SHEET_WIDTH = 1800
GAP = 8
_WHITE_BORDER = (cv2.BORDER_CONSTANT, None, (255, 255, 255))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument(
        '--number',
        type=COUNT,
        default=16,
        help='keyframes to draw, spread evenly over the dataset (default: 16)',
    )
    parser.add_argument(
        '--clip', action='store_true', help='draw all frames of the clips, not only one'
    )
    parser.add_argument(
        '--seed', type=SEED, default=0, help='of the augmentation (default: 0)'
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument('--out', metavar='FOLDER', help='write a picture for each')
    where.add_argument(
        '--sheet',
        metavar='FILE.jpg',
        help='write one contact sheet; by default browse_SPLIT.jpg in the work dir',
    )
    where.add_argument('--show', action='store_true', help='show them in a window')
    add_cfg_options(parser)
    return parser.parse_args()


def build_datasets(cfg: Config, split: str) -> list:
    """The datasets of a split, taken out of their wrappers."""
    configs = [one for one in dataset_configs(cfg, split) if one]
    if not configs:
        raise UserError(
            f'The config has no dataset in {split}_dataloader; choose another --split.'
        )
    return [DATASETS.build(config) for config in configs]


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
    """The keyframe of a packed sample (h, w, 3) RGB, boxes, labels and its name on it.

    Small frames are enlarged. With the clip, its frames stand side by side in order;
    with tubelets each has its boxes, and says who is absent and who is unknown.
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
        if is_of_clip:
            number = f'frame {data_sample.clip_frames[entry]}'
            headings.append([(number, None), *describe_states(truth, entry)])
        tiles.append(tile)
    title = f'{data_sample.get("img_key", "")}  {frames.shape[2]}x{frames.shape[1]}'
    picture = side_by_side(tiles, headings) if headings else np.hstack(tiles)
    return np.concatenate([_caption(title, picture.shape[1]), picture])


def _caption(text: str, width: int) -> np.ndarray:
    """A strip (22, width, 3) with a text, made smaller where it does not fit."""
    strip = np.full((22, width, 3), 32, np.uint8)
    (length, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    scale = 0.5 * min(1, (width - 8) / max(length, 1))
    white = (255, 255, 255)
    cv2.putText(
        strip, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, scale, white, 1, cv2.LINE_AA
    )
    return strip


def contact_sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures (h, w, 3) side by side in rows of about ``SHEET_WIDTH`` pixels."""
    rows, width = [], SHEET_WIDTH
    for picture in pictures:
        if width + picture.shape[1] > SHEET_WIDTH:
            rows.append([])
            width = 0
        rows[-1].append(picture)
        width += picture.shape[1] + GAP
    strips = []
    for row in rows:
        height = max(map(len, row))
        tiles = [_pad(one, bottom=height - len(one), right=GAP) for one in row]
        strips.append(np.concatenate(tiles, axis=1))
    width = max(strip.shape[1] for strip in strips)
    strips = [_pad(one, bottom=GAP, right=width - one.shape[1]) for one in strips]
    return cv2.copyMakeBorder(np.concatenate(strips), GAP, 0, GAP, 0, *_WHITE_BORDER)


def _pad(picture: np.ndarray, *, bottom: int, right: int) -> np.ndarray:
    return cv2.copyMakeBorder(picture, 0, bottom, 0, right, *_WHITE_BORDER)


def run(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    check_arguments(cfg)
    stem = Path(args.config).stem
    sheet = args.sheet or Path(
        cfg.get('work_dir') or f'work_dirs/{stem}', f'browse_{args.split}.jpg'
    )
    if not args.out and not args.show:
        check_writable_file(sheet, purpose='--sheet', suffixes=SUFFIXES)
    datasets = build_datasets(cfg, args.split)
    np.random.seed(args.seed)
    places = spread([len(one) for one in datasets], args.number)
    files = [Path(args.out or '', f'{number:04}.jpg') for number in range(len(places))]
    if args.out:
        check_writable_dir(args.out, purpose='folder --out')
    pictures = (
        draw_sample(
            datasets[part][index],
            datasets[part].metainfo.get('classes'),
            with_clip=args.clip,
        )
        for part, index in places
    )
    if args.show:
        show_pictures(pictures)
        return
    if args.out:
        for file, picture in zip(files, pictures, strict=True):
            write_picture(file, picture)
    else:
        write_picture(sheet, contact_sheet(list(pictures)))
    print(f'{len(places)} keyframes: {args.out or sheet}')


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
