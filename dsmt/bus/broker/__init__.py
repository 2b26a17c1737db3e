"""The broker: a shell, and the machines it is made of, which hold a store and wait for nothing."""
