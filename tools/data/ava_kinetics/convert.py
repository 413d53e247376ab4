"""Convert AVA-Kinetics' annotation of Kinetics to AVA's format for the clips you have."""

from typing import Annotated

from stmixer_mm.command_line import OptionsOf, run_main
from stmixer_mm.projects.annotate.ava_kinetics import convert_ava_kinetics


def main(
    annotations: list[str],
    *,
    conversion: Annotated[dict, OptionsOf(convert_ava_kinetics)],
) -> None:
    """Convert AVA-Kinetics' annotation of Kinetics to AVA's format for your clips.

    Writes OUT.csv, whose videos are the clips and whose timestamps count from their
    starts. Keyframes whose clip is missing, cannot be read or is too short are left out.

    Args:
        annotations: Published files, such as kinetics_train_v1.0.csv.
        conversion: See convert_ava_kinetics.
    """
    print(convert_ava_kinetics(annotations, **conversion))


if __name__ == '__main__':
    run_main(main)
