"""What can be found wrong before any work is done."""
