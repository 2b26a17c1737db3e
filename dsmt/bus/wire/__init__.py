"""The wire: what crosses a link between a client and a broker."""
