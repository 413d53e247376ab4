"""Diagnosis of predictions: error types, figures and pictures."""
