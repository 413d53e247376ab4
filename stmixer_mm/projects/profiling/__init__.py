"""Models, clips, counting and tables for the tools in ``tools/analysis``."""
