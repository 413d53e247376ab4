"""Convert annotations from CVAT or COCO's JSON to the files that training reads."""

from typing import Annotated

from stmixer_mm.command_line import OptionsOf, run_main
from stmixer_mm.projects.annotate.convert import convert_annotations


def main(
    annotations: list[str],
    *,
    conversion: Annotated[dict, OptionsOf(convert_annotations)],
) -> None:
    """Convert annotations from CVAT or COCO's JSON to the files that training reads.

    Takes "CVAT for video 1.1" (XML) and COCO with videos (JSON). Writes OUT.csv, which
    is in AVA's format, OUT_empty.csv with the keyframes that show no person, the label
    map and, if persons have masks or polygons, OUT_masks.json.

    Args:
        annotations: XML or JSON files.
        conversion: See convert_annotations.
    """
    print(convert_annotations(annotations, **conversion))


if __name__ == '__main__':
    run_main(main)
