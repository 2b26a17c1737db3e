"""Screens: services and the realm in one look, and everything that is not as it should be."""
