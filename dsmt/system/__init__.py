"""Linux: clock, entropy, files and processes behind the ports (floor 5)."""
