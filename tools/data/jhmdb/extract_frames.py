"""Extract the frames of JHMDB's videos as small JPEGs, which load in a millisecond."""

from pathlib import Path

from stmixer_mm.command_line import Count, run_main
from stmixer_mm.datasets.frames import VIDEO_SUFFIXES
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_writable_dir

import av
from tqdm import tqdm

QUALITY = 92


def main(videos: Path, out: Path, *, width: Count = 256, height: Count = 192) -> None:
    """Args:
    videos: Folder of the videos, CLASS/NAME.mp4 or .avi.
    out: Folder of the frames, CLASS/NAME/00001.jpg and so on.
    width, height: Of the frames.
    """
    check_writable_dir(out, purpose='folder of the frames')
    files = sorted(f for f in videos.glob('*/*') if f.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise UserError(f'{videos} has no videos as CLASS/NAME.mp4; correct the path.')
    for file in tqdm(files, unit='video'):
        folder = out / file.relative_to(videos).with_suffix('')
        folder.mkdir(parents=True, exist_ok=True)
        with blame(f'{file} cannot be read', 'fetch it again'), av.open(file) as opened:
            for number, frame in enumerate(opened.decode(video=0), start=1):
                picture = frame.to_image(width=width, height=height)
                picture.save(folder / f'{number:05}.jpg', quality=QUALITY)


if __name__ == '__main__':
    run_main(main)
