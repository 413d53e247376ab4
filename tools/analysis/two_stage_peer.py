"""Time a one-stage detector against a two-stage one on the same keyframes of a video.

The peer is mmdet's Faster R-CNN on the keyframe, at its test scale, then MMAction2's
SlowOnly with a RoI head on the clip. All weights are random, which is enough to
measure time: the RoI head of the actions is given random persons.
"""

import argparse
from copy import deepcopy

from stmixer_mm.checks.options import COUNT, number
from stmixer_mm.errors import UserError, blame, user_errors
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.profiling.clips import ClipPipeline, video_clips
from stmixer_mm.projects.profiling.meter import (
    Meter,
    clock,
    machine,
    medians,
    watch_children,
)
from stmixer_mm.projects.profiling.models import (
    build_model,
    num_classes_of,
    quieten,
    read_config,
)

import mmdet.utils
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.utils.dl_utils import set_multi_processing

DETECTOR = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py'
RECOGNISER = (
    'mmaction::detection/slowonly/'
    'slowonly_kinetics400-pretrained-r50_8xb16-4x16x1-20e_ava21-rgb.py'
)
PART_NAMES = {'data_preprocessor': 'preprocessing', 'head': 'post-processing'}
PERSONS = 'persons: '


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of the one-stage detector')
    parser.add_argument('--video', required=True, help='video file')
    parser.add_argument(
        '--detector', default=DETECTOR, help='config of the person detector'
    )
    parser.add_argument(
        '--recogniser',
        default=RECOGNISER,
        help='config of the detector of actions, which is given persons',
    )
    parser.add_argument(
        '--persons',
        type=number(int, 1, 10_000),
        default=5,
        help='persons whose actions the peer finds (default: %(default)s)',
    )
    parser.add_argument(
        '--turns',
        type=COUNT,
        default=5,
        help='keyframes that each one detects in, in turn (default: %(default)s)',
    )
    parser.add_argument('--device', default='cpu', help='as in cpu or cuda:0')
    parser.add_argument('--json', metavar='FILE', help='write the figures to this file')
    return parser.parse_args()


class OneStage:
    """Clip to persons and actions."""

    def __init__(self, cfg: Config, device: str) -> None:
        self.meter = Meter(clock(device))
        self.pipeline = ClipPipeline(cfg, 'test', source='video')
        self.model = build_model(cfg, device=device)
        watch_children(self.meter, self.model, names=PART_NAMES)

    def detect(self, info: dict) -> dict[str, float]:
        """Seconds of each part."""
        with torch.no_grad(), self.meter.part('other'):
            clip = self.load(info)
            self.detect_persons(clip)
            with self.meter.part('augmentation'):
                packed = self.pipeline.augment(clip)
            self.model.test_step(pseudo_collate([packed]))
        seconds = self.meter.take()
        return dict(seconds, total=sum(seconds.values()))

    def load(self, info: dict) -> dict:
        with self.meter.part('decoding'):
            return self.pipeline.decode(self.pipeline.open(deepcopy(info)))

    def detect_persons(self, clip: dict) -> None:
        """The queries find them with their actions."""


class TwoStage(OneStage):
    """Keyframe to persons, then clip and persons to actions."""

    def __init__(self, cfg: Config, detector_cfg: Config, device: str) -> None:
        super().__init__(cfg, device)
        if 'test_pipeline' not in detector_cfg or 'roi_head' not in detector_cfg.model:
            raise UserError(
                '--detector has no test_pipeline or no model.roi_head; give the config '
                'of a two-stage detector of mmdet.'
            )
        transforms = [
            transform
            for transform in detector_cfg.test_pipeline
            if not transform.type.startswith('Load')
        ]
        mmdet.utils.register_all_modules(init_default_scope=False)
        with DefaultScope.overwrite_default_scope('mmdet'):
            self.image_pipeline = Compose(
                [dict(type='LoadImageFromNDArray'), *transforms]
            )
        self.detector = build_model(detector_cfg, device=device)
        watch_children(self.meter, self.detector, names=PART_NAMES, prefix=PERSONS)
        self.num_proposals = []
        self.detector.roi_head.bbox_head.register_forward_pre_hook(
            lambda head, feats: self.num_proposals.append(len(feats[0]))
        )

    def detect_persons(self, clip: dict) -> None:
        keyframe = clip['imgs'][len(clip['imgs']) // 2]
        with self.meter.part(f'{PERSONS}resizing'):
            bgr = keyframe[..., ::-1].copy()
            packed = self.image_pipeline(dict(img=bgr, img_id=0))
        self.detector.test_step(pseudo_collate([packed]))


def compare(args: argparse.Namespace) -> dict:
    """Medians over the turns, the first of which warms up."""
    cfg, detector, recogniser = map(
        read_config, (args.config, args.detector, args.recogniser)
    )
    infos = video_clips(
        args.video,
        args.turns + 1,
        persons=args.persons,
        num_classes=num_classes_of(recogniser),
    )
    systems = {
        'one stage': OneStage(cfg, args.device),
        'two stages': TwoStage(recogniser, detector, args.device),
    }
    records = {name: [] for name in systems}
    for info in infos:
        for name, system in systems.items():
            records[name].append(system.detect(info))
    return dict(
        seconds={name: medians(turns[1:]) for name, turns in records.items()},
        proposals=systems['two stages'].num_proposals[-1],
    )


def print_seconds(seconds: dict[str, dict[str, float]]) -> None:
    """A column per system, a row per part, the total last."""
    parts = dict.fromkeys(part for column in seconds.values() for part in column)
    last = 'other', 'total'
    rows = [('seconds per keyframe', *seconds)]
    for part in (*(part for part in parts if part not in last), *last):
        cells = (
            f'{column[part]:.4f}' if part in column else '-'
            for column in seconds.values()
        )
        rows.append((part, *cells))
    print(format_table(rows))


def run(args: argparse.Namespace) -> None:
    quieten()
    check_json_path(args.json)
    set_multi_processing()
    with blame(f'{args.config} and its peer cannot be compared'):
        figures = compare(args)
    print_seconds(figures['seconds'])
    one, two = (column['total'] for column in figures['seconds'].values())
    print(
        f'two stages take {two / one:.2f} times as long; persons: '
        f'{figures["proposals"]} proposals, of which {args.persons} go on'
    )
    heading = dict(
        config=args.config,
        detector=args.detector,
        recogniser=args.recogniser,
        video=args.video,
        persons=args.persons,
        turns=args.turns,
    )
    write_json(args.json, {**heading, **machine(args.device), **figures})


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
