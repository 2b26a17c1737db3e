"""The loop in which a controller's decisions meet time and the bus, and what it alone asks itself before it speaks."""
