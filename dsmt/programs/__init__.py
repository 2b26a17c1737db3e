"""Programs: the wiring of one process each (floor 6)."""
