"""What a command sees of the realm: the facts that stand, and the events as they come."""
