"""The bus, and the network below one, within one process."""
