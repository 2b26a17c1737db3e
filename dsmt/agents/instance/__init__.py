"""The deployment agent: one container's process."""
