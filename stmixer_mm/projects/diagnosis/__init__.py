"""What a model gets wrong, in figures and pictures."""
