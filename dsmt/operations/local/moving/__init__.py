"""Moving: a realm moves between dsmt's brokers and NATS."""
