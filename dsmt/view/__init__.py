"""The view: facts folded into what a decision reads (floor 2)."""
