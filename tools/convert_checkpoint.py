"""Convert a released STMixer checkpoint to this package's names."""

import json

from stmixer_mm.apis.conversion import convert_checkpoint
from stmixer_mm.command_line import run_main
from stmixer_mm.files import check_writable_file


def main(src: str, dst: str, *, trust: bool = False) -> None:
    """Args:
    src: Released checkpoint: a state dict, or with "model".
    dst: File to write; left alone on failure.
    trust: Load Python objects in the file too. They can run code: only for files from
        people you trust.
    """
    check_writable_file(dst, purpose='dst')
    parts = convert_checkpoint(src, dst, trust=trust)
    print(f'{dst} fits a model with these parts:')
    print(json.dumps(parts, indent=2))


if __name__ == '__main__':
    run_main(main)
