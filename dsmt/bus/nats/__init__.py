"""The bus on NATS JetStream: a client's side, the gate beside each server, and what moves a realm there and back."""
