"""The network on ZeroMQ."""
