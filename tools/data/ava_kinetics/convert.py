"""Convert AVA-Kinetics' annotation of Kinetics to AVA's format for the clips you have."""

from stmixer_mm.command_line import run_main
from stmixer_mm.projects.annotate.ava_kinetics import convert_ava_kinetics

if __name__ == '__main__':
    print(run_main(convert_ava_kinetics))
