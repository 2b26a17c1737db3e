"""Programs: the wiring of one process each."""
