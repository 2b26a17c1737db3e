"""Words: what an operator reads and types, as values."""
