"""Events: the signed statements that everything else is made of."""
