"""Artifacts: fetched, checked and unpacked."""
