"""What several projects need and the core does not."""
