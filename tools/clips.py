"""Cut actions that stmixer detect found out of their videos."""

import re
import sys
from collections import defaultdict
from pathlib import Path

from stmixer_mm.command_line import NotNegative, Score, run_main
from stmixer_mm.datasets.streams import is_live
from stmixer_mm.datasets.videos import DamagedVideo, join_stretches, open_video
from stmixer_mm.errors import UserError
from stmixer_mm.files import check_writable_dir
from stmixer_mm.projects.results.clips import cut_clip
from stmixer_mm.projects.results.summary import Stretch, list_stretches, load_results


def main(
    folder: str,
    *,
    action: list[str],
    pad: NotNegative = 1.0,
    score_thr: Score = 0.0,
    out: str | None = None,
) -> None:
    """Cut actions that stmixer detect found out of their videos.

    A clip has the frames of a stretch and their sound: copied if a copy can begin and end
    there, else encoded as H.264. Its name says the video, person, second and action.

    Args:
        folder: Folder that stmixer detect wrote, with a JSON file for each video.
        action: Names of actions.
        pad: Seconds before and after each stretch; stretches of a person that then touch
            are one clip.
        score_thr: Leave out stretches with lower mean scores.
        out: Folder of the clips (default: clips in the folder).

    Raises:
        UserError: there is no such stretch, the results have no ids, or a video is gone.
    """
    results = load_results(folder)
    stretches = {name: [*list_stretches(video)] for name, video in results.items()}
    actions = {stretch.action for group in stretches.values() for stretch in group}
    for name, group in stretches.items():
        stretches[name] = [
            stretch
            for stretch in group
            if stretch.action in action and stretch.score >= score_thr
        ]
    if not any(stretches.values()):
        raise UserError(
            f'{folder} has no stretch of {" or ".join(action)} with a score of at least '
            f'{score_thr:g}; its actions are: {", ".join(sorted(actions)) or "none"}.'
        )
    target = Path(out or Path(folder, 'clips'))
    check_writable_dir(target, purpose='folder of --out')
    for name, group in stretches.items():
        if group:
            cut_video(results[name].source, group, pad, target / name)


def cut_video(source: str, stretches: list[Stretch], pad_s: float, stem: Path) -> None:
    """Cut the stretches of a video; those of a person that touch are one clip."""
    if is_live(source):
        raise UserError(f'{source} is a stream; clips can be cut from video files.')
    video = open_video(source, on_damage=tell)
    spans = defaultdict(list)
    for stretch in stretches:
        start, end = max(0, stretch.start_s - pad_s), stretch.end_s + pad_s
        spans[stretch.person, stretch.action].append((start, end))
    for (person, action), padded in spans.items():
        for start, end in join_stretches(padded):
            name = re.sub(r'[^\w.-]+', '_', action)
            out = stem.with_name(f'{stem.name}_person{person}_{start:.2f}s_{name}.mp4')
            is_copied = cut_clip(video, start, end, out, on_damage=tell)
            print(f'{out}: {"copied" if is_copied else "encoded"}')


def tell(damage: DamagedVideo) -> None:
    print(damage, file=sys.stderr)


if __name__ == '__main__':
    run_main(main)
