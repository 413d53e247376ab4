"""Convert annotations of CVAT, Label Studio or COCO to the files that training reads."""

from stmixer_mm.command_line import run_main
from stmixer_mm.projects.annotate.convert import convert_annotations

if __name__ == '__main__':
    print(run_main(convert_annotations))
