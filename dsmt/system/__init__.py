"""Linux: clock, entropy, files and processes behind the ports."""
