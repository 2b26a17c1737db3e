"""Health checks: one try each, against a real instance."""
