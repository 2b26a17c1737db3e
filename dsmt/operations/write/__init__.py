"""Writing: what an operator says, by operations that publish facts."""
