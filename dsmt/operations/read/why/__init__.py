"""Why: the chain of events that led to what is so, and what keeps an instance off a node."""
