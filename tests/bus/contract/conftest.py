"""The engines on which every clause of the contract is run."""

from pathlib import Path

import pytest

from .engines import ENGINES, REAL, NatsEngine

HERE = Path(__file__).parent


def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Those that share servers follow one another: with the last of them the servers end."""
    if nextitem is None or HERE not in nextitem.path.parents:
        NatsEngine.end_all()


def _marks(kind: str) -> list[pytest.MarkDecorator]:
    """Those that share servers are run by one worker, one after the other."""
    shared = [pytest.mark.xdist_group("nats")] if kind.startswith("nats") else []
    return [pytest.mark.real, *shared] if kind in REAL else shared


@pytest.fixture(params=[pytest.param(kind, marks=_marks(kind)) for kind in ENGINES])
def engine_kind(request):
    return request.param
