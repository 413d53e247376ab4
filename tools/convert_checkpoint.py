"""Convert checkpoints: the release's to this package's names, this package's to ship."""

import json
import os
from collections.abc import Sequence

from stmixer_mm.apis.conversion import write_weights
from stmixer_mm.command_line import run_main
from stmixer_mm.files import check_writable_file, sha256_of
from stmixer_mm.projects.release import convert_checkpoint, list_fitting


def main(src: str, dst: str, *, average: Sequence[str] = ()) -> None:
    """Args:
    src: Released checkpoint: a state dict, or with "model"; or one of this package.
    dst: File to write; left alone on failure. With the suffix .safetensors it gets the
        weights of a checkpoint of this package in half precision, and its actions.
    average: Earlier checkpoints of the same training, for means of their weights.
    """
    check_writable_file(dst, purpose='dst', inputs=[src, *average])
    if dst.endswith('.safetensors'):
        write_weights([*average, src], dst)
        print(f'{dst}: {os.path.getsize(dst) / 1e6:.2f} MB, SHA-256 {sha256_of(dst)}')
        return
    parts = convert_checkpoint(src, dst)
    print(f'{dst} fits a model with these parts:')
    print(json.dumps(parts, indent=2))
    names = [model.config.stem for model in list_fitting(parts)]
    print('config:', ' or '.join(names) or 'none of this package')


if __name__ == '__main__':
    run_main(main)
