"""The engines on which every clause of the contract is run."""

import pytest

from .engines import ENGINES, REAL


def _marks(kind: str) -> list[pytest.MarkDecorator]:
    """Those that share servers are run by one worker, one after the other."""
    shared = [pytest.mark.xdist_group("nats")] if kind.startswith("nats") else []
    return [pytest.mark.real, *shared] if kind in REAL else shared


@pytest.fixture(params=[pytest.param(kind, marks=_marks(kind)) for kind in ENGINES])
def engine_kind(request):
    return request.param
