"""Events: the signed statements that everything else is made of (floor 0)."""
