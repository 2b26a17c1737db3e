"""Controllers: pure decisions over a view (floor 3) and the loop that runs them (floor 5)."""
