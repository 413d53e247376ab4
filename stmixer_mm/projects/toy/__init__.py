"""A dataset of drawn people whose actions show only in movement."""
