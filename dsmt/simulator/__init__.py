"""The simulator: the real modules in virtual time, what befalls them, and what must hold whatever does."""
