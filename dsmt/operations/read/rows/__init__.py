"""Rows: each thing of a realm as tables and screens show it: instances, members, certificates, revisions."""
