"""Ports: the interfaces through which async code touches the outside."""
