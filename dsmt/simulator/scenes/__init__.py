"""Scenes: what happens in each scenario, by subject."""
