"""The client: one source's connection to the realm."""
