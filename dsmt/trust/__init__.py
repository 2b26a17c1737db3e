"""Trust: keys, certificates, grants, delegation and revocation (floor 1)."""
