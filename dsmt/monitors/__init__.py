"""Monitors: install monitors, health, node and probe."""
