"""Time the decoder's sampling back ends against each other, turn by turn."""

import argparse
import json
import statistics
import time

import torch
from mmengine.logging import MMLogger

from stmixer_mm.apis import user_errors
from stmixer_mm.models.decoder.sampling import SAMPLING_BACKENDS
from stmixer_mm.registry import MODELS

STRIDES = (4, 8, 16, 32)
LITERAL = 'grid_sample'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--mode', choices=['forward', 'train'], default='forward')
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--frames', type=int, default=4, help='of the feature maps')
    parser.add_argument('--queries', type=int, default=100)
    parser.add_argument('--size', default='256x320', help='of the clip, HxW')
    parser.add_argument(
        '--backends',
        nargs='+',
        choices=sorted(SAMPLING_BACKENDS),
        default=['embedding_bag', 'mmcv'],
        help=f'to be compared with {LITERAL}, the formulation of the paper',
    )
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--turns', type=int, default=5)
    parser.add_argument('--json', help='write the rows to this file, too')
    return parser.parse_args()


def time_turn(decoder, feats, args, backend: str) -> float:
    """Seconds of one pass of the whole decoder."""
    for stage in decoder.stages:
        stage.sampling_backend = backend
    height, width = feats[0].shape[-2] * 4, feats[0].shape[-1] * 4
    img_shapes = torch.tensor([[height, width]] * args.batch, device=args.device)
    wait = torch.cuda.synchronize if args.device.startswith('cuda') else lambda: None
    wait()
    start = time.perf_counter()
    with torch.set_grad_enabled(args.mode == 'train'):
        outputs = decoder(feats, img_shapes=img_shapes, pad_shape=(height, width))
    if args.mode == 'train':
        sum(values.sum() for output in outputs for values in output).backward()
        decoder.zero_grad()
    wait()
    return time.perf_counter() - start


def benchmark(args: argparse.Namespace) -> list[dict]:
    height, width = map(int, args.size.split('x'))
    decoder = MODELS.build(
        dict(
            type='STMixerDecoder',
            num_frames=args.frames,
            num_queries=args.queries,
            strides=STRIDES,
        )
    ).to(args.device)
    decoder.init_weights()
    feats = [
        torch.randn(
            args.batch,
            decoder.embed_dims,
            args.frames,
            height // stride,
            width // stride,
            device=args.device,
            requires_grad=args.mode == 'train',
        )
        for stride in STRIDES
    ]
    backends = [LITERAL, *(name for name in args.backends if name != LITERAL)]
    seconds = {backend: [] for backend in backends}
    for turn in range(args.turns + 1):
        for backend in backends:
            elapsed = time_turn(decoder, feats, args, backend)
            if turn:  # the first one warms up
                seconds[backend].append(elapsed)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        dict(
            mode=args.mode,
            batch=args.batch,
            frames=args.frames,
            queries=args.queries,
            size=args.size,
            device=args.device,
            threads=torch.get_num_threads(),
            backend=backend,
            seconds=round(median, 4),
            ratio=round(medians[LITERAL] / median, 2),
        )
        for backend, median in medians.items()
    ]


def main() -> None:
    args = parse_args()
    # mmengine would tell how each parameter was initialised.
    MMLogger.get_instance('benchmark', log_level='WARNING')
    with user_errors():
        rows = benchmark(args)
    for row in rows:
        print(
            f'{row["backend"]:14} {row["mode"]:8} B {row["batch"]}  T {row["frames"]}  '
            f'{row["seconds"]:.3f} s  {row["ratio"]:.2f}x'
        )
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(rows, file, indent=2)


if __name__ == '__main__':
    main()
