"""Feature maps to levels of one width and length."""
