"""The simulator: the real modules in virtual time (floor 7)."""
