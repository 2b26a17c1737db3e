"""A decentralized, event-driven service manager."""
