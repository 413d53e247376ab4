"""What is behind the metrics of predictions in a file, as tables and pictures."""

from stmixer_mm.command_line import run_main
from stmixer_mm.projects.diagnosis.report import analyze

if __name__ == '__main__':
    run_main(analyze)
