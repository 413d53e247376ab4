"""Evaluate predictions in files by the metrics of a config, without a model."""

import stmixer_mm.projects.published  # noqa: F401 - readers of results
from stmixer_mm.command_line import run_main
from stmixer_mm.projects.diagnosis.evaluate import evaluate as main

if __name__ == '__main__':
    run_main(main)
