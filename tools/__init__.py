"""The tools, installed as the package ``stmixer_tools``."""
