"""Kinds of events: each module holds the records, the sentences and the rows of the registry of what it is about."""
