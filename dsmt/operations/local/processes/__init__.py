"""Processes: what of a home runs on this machine, who keeps it, and how it is ended."""
