"""Shared fixtures; and what holds for all property tests: machines are slow and shared, so no example has a deadline."""

from hypothesis import HealthCheck, settings

settings.register_profile("dsmt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dsmt")
