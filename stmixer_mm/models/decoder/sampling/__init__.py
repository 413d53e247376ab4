"""4D sampling: where the queries look, and what they see there."""
