"""Local: this machine: the home, its realm's processes, the connection of a command line."""
