"""Recorded history: exported, proven, verified, replayed, with no realm."""
