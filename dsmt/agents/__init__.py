"""Agents: what runs on every node: container manager, deployment agents, artifacts."""
