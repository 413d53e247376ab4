"""Convert a released STMixer checkpoint to this package's names."""

import json

from stmixer_mm.apis.conversion import convert_checkpoint
from stmixer_mm.apis.model_zoo import list_fitting
from stmixer_mm.command_line import run_main
from stmixer_mm.files import check_writable_file


def main(src: str, dst: str) -> None:
    """Args:
    src: Released checkpoint: a state dict, or with "model".
    dst: File to write; left alone on failure.
    """
    check_writable_file(dst, purpose='dst')
    parts = convert_checkpoint(src, dst)
    print(f'{dst} fits a model with these parts:')
    print(json.dumps(parts, indent=2))
    names = [model.config.stem for model in list_fitting(parts)]
    print('config:', ' or '.join(names) or 'none of this package')


if __name__ == '__main__':
    run_main(main)
