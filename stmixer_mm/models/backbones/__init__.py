"""Clips to feature maps."""
