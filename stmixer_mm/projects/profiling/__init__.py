"""What the tools in ``tools/analysis`` share: models, clips, counting and tables."""
