"""The bus's adapters: the network on ZeroMQ and in memory, the store on SQLite."""
