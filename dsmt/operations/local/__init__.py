"""Local: this machine: the home, and its realm's processes."""
