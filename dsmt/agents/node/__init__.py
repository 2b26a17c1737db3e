"""The container manager: one process of each node."""
