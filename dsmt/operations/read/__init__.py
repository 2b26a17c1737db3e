"""Reading: what an operator sees, by operations that change nothing."""
