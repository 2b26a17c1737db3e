"""Issuers: who answers the requests for certificates of nodes."""
