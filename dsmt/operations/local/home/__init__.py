"""Home: what a realm has on this machine, its files, its lock, and what is made in it."""
