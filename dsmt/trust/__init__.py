"""Trust: keys, certificates, grants, delegation and revocation."""
