"""Controllers: pure decisions over a view and the loop that runs them."""
