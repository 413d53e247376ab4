"""Make the toy dataset: short annotated videos of drawn people."""

from stmixer_mm.command_line import run_main
from stmixer_mm.projects.toy.generate import make_toy_dataset

if __name__ == '__main__':
    run_main(make_toy_dataset)
