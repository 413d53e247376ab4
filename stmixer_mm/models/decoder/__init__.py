"""Queries, boxes and feature maps -> one record of outputs per stage."""
