"""Count the FLOPs and parameters of each part of a model."""

from stmixer_mm.apis.config import config_files
from stmixer_mm.command_line import CfgOptions, run_main
from stmixer_mm.errors import blame
from stmixer_mm.evaluation.functional.tables import format_table
from stmixer_mm.files import check_json_path, write_json
from stmixer_mm.projects.profiling.clips import Shape, random_clip
from stmixer_mm.projects.profiling.flops import count_parts
from stmixer_mm.projects.profiling.models import build_model, quieten, read_config


def main(
    config: str,
    *,
    shape: Shape = None,
    json: str | None = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Count the FLOPs and parameters of each part of a model.

    FLOPs are those of convolutions and matrix products, a multiply-add as two. Sampling
    (embedding_bag, grid_sample), norms, activations, pooling and post-processing are
    not counted.

    Args:
        config: Config file, or one of a package as in mmaction::a/b.py.
        shape: Frames, height and width of the clip; by default those of the test
            pipeline on frames of 4:5.
        json: Write the rows to this file.
    """
    quieten()
    cfg = read_config(config, cfg_options)
    check_json_path(json, config_files(cfg))
    with blame(f'{config} cannot be measured'):
        clip = random_clip(cfg, shape=shape)
        model = build_model(cfg)
        data = model.data_preprocessor(clip)
        size = list(data['inputs'].shape[-3:])
        counts = count_parts(model, data)
    rows = [('part', 'GFLOP', 'parameters (M)', 'trained (M)')]
    for count in counts:
        numbers = count.flops / 1e9, count.parameters / 1e6, count.trainable / 1e6
        rows.append((count.part, *(f'{number:,.3f}' for number in numbers)))
    print(f'a clip of {"x".join(map(str, size))} (frames, height and width, padded)')
    print(format_table(rows))
    rows = [count._asdict() for count in counts]
    write_json(json, dict(config=config, clip=size, rows=rows))


if __name__ == '__main__':
    run_main(main)
