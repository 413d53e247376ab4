"""What several floors speak of: presence states, decoder outputs, records of results."""

# States of a person in a frame: has a box there, is not there, is not annotated there.
PRESENT, ABSENT, UNKNOWN = 1, 0, -1
