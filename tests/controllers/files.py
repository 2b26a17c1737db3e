"""Service files for tests, each read once: hundreds of realms begin with the same one."""

from functools import lru_cache

from dsmt.spec.parsing import parse
from dsmt.spec.records import ServiceSpec


@lru_cache(maxsize=256)
def read(text: str) -> ServiceSpec:
    """The service of a file."""
    return parse(text, file="service.yaml")[0]
