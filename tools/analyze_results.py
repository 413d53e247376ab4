"""Tables and pictures of the predictions in a file, by the metrics of a config."""

import stmixer_mm.projects.published  # noqa: F401 - readers of results
from stmixer_mm.command_line import run_main
from stmixer_mm.projects.diagnosis.report import analyze

if __name__ == '__main__':
    run_main(analyze)
