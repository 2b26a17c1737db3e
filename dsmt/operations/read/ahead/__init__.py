"""Ahead: what would follow, by the very decisions that controllers make, on a copy of the live view."""
