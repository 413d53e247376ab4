"""Write a detector of keyframes to a file for another runtime.

Clips go in as uint8, as the test pipeline makes them; scores and boxes of all queries
come out. The file is compared with the model before it gets its name.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import stmixer_mm
from stmixer_mm.apis import init_detector
from stmixer_mm.checks.options import COUNT, add_cfg_options
from stmixer_mm.datasets.pipelines import dataset_configs, find_sampler
from stmixer_mm.errors import UserError, user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.export.formats import FORMATS, Metadata, load, write
from stmixer_mm.export.parity import LIMITS, compare
from stmixer_mm.export.tensors import TensorDetector
from stmixer_mm.files import check_writable_file, claim_outputs
from stmixer_mm.models.data_preprocessor import single_clips
from stmixer_mm.profiling.clips import ClipPipeline, random_clip, video_clips

import torch
from mmengine.config import Config
from torch import Tensor

NUM_REAL = 4  # clips of the video


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or the name of one in configs/')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--to', required=True, choices=FORMATS)
    parser.add_argument('--out', type=Path, required=True, help='file to write')
    parser.add_argument(
        '--video',
        help='compare on clips of this video too; its frames give height and width',
    )
    parser.add_argument(
        '--shape',
        type=COUNT,
        nargs=3,
        metavar=('T', 'H', 'W'),
        help='frames, height and width of the clips; by default what the test pipeline '
        'makes of the video, or else of frames of 4:5',
    )
    parser.add_argument(
        '--dynamic',
        choices=['batch'],
        help='any number of clips at once (default: one)',
    )
    parser.add_argument(
        '--precision',
        choices=['fp32', 'fp16'],
        default='fp32',
        help='of the weights in the file; fp16 for OpenVINO (default: %(default)s)',
    )
    parser.add_argument(
        '--label-map', help='label map (pbtxt) with the names of actions'
    )
    add_cfg_options(parser)
    return parser.parse_args()


def real_clips(cfg: Config, video: str) -> Tensor:
    """Clips from all over a video, (B, 3, T, h, w)."""
    pipeline = ClipPipeline(cfg, 'test', source='video')
    infos = video_clips(video, NUM_REAL, persons=1, num_classes=2)
    return torch.stack(single_clips(pipeline(info)['inputs'] for info in infos))


def clips_to_compare(cfg: Config, args: argparse.Namespace) -> dict[str, Tensor]:
    clips = {}
    if args.video:
        clips['real'] = real_clips(cfg, args.video)
    if args.shape is None and clips:
        shape = clips['real'].shape[-3:]
    else:
        (noise,) = random_clip(cfg, shape=args.shape)['inputs']
        shape = noise.shape[-3:]
    if clips and clips['real'].shape[-3:] != shape:
        raise UserError(
            f'--shape is {tuple(shape)}, but the test pipeline makes clips of '
            f'{tuple(clips["real"].shape[-3:])} of {args.video}; leave one of both out.'
        )
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(
        0, 256, (2, 3, *shape), dtype=torch.uint8, generator=generator
    )
    return {'random': noise, **clips}


def run(args: argparse.Namespace) -> None:
    form = FORMATS[args.to]
    check_writable_file(args.out, purpose='--out', suffixes=(form.suffix,))
    if form.beside:
        claim_outputs('--out', args.out.with_suffix(form.beside), beside=args.out)
    model = init_detector(
        args.config,
        args.checkpoint,
        label_map=args.label_map,
        cfg_options=args.cfg_options,
    )
    cfg = model.cfg
    clips = clips_to_compare(cfg, args)
    shape = [*clips['random'].shape[-3:]]
    detector = TensorDetector(model, tuple(shape[1:])).eval()
    transforms = next(dataset_configs(cfg, 'test'), {}).get('pipeline') or []
    sampler = find_sampler(transforms)
    preprocessor = model.data_preprocessor
    metadata = Metadata(
        version=stmixer_mm.__version__,
        classes=None if model.classes is None else [*model.classes],
        shape=shape,
        batch=None if args.dynamic else 1,
        frame_interval=transforms[sampler].get('frame_interval', 1),
        mean=preprocessor.mean.flatten().tolist(),
        std=preprocessor.std.flatten().tolist(),
        score_thr=model.head.score_thr,
    )
    half = args.precision == 'fp16'
    with TemporaryDirectory(dir=args.out.parent) as folder:
        file = Path(folder, args.out.name)
        write(detector, metadata, file, half=half)
        runner, _ = load(file)
        rows = [
            ('clips', '', 'person scores', 'action scores', 'pixels', 'kept by both')
        ]
        met = True
        for name, each in clips.items():
            for clip in each.split(metadata.batch or len(each)):
                parity = compare(detector, runner, clip)
                met &= parity.is_met(LIMITS[half])
                rows.append(
                    (
                        name,
                        f'{len(clip)}',
                        f'{parity.person_scores:.1e}',
                        f'{parity.action_scores:.1e}',
                        f'{parity.pixels:.1e}',
                        f'{parity.agreed} of {parity.kept}',
                    )
                )
        print('largest differences from PyTorch')
        print(format_table(rows, left=1))
        if not met:
            limits = LIMITS[half]
            raise UserError(
                f'{args.out} is not written: scores differ by more than {limits.scores:g} '
                f'or boxes by more than {limits.pixels:g} pixels (see above); take '
                'another format or precision.'
            )
        for suffix in filter(None, (form.beside, form.suffix)):
            os.replace(file.with_suffix(suffix), args.out.with_suffix(suffix))
    print(
        f'{args.out}: {args.out.stat().st_size / 2**20:.0f} MB, clips {metadata.shape}'
    )


if __name__ == '__main__':
    with user_errors():
        run(parse_args())
