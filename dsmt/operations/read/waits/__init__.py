"""Waits: until what was asked for is done, or is known to come to nothing."""
