"""Write the banks of videos: vectors of the persons found, for a memory."""

from stmixer_mm.command_line import run_main
from stmixer_mm.projects.memory.extract import extract as main

if __name__ == '__main__':
    run_main(main)
