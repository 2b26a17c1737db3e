"""The engines on which every clause of the contract is run."""

import pytest

from .engines import ENGINES, REAL


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.real) if kind in REAL else kind for kind in ENGINES])
def engine_kind(request):
    return request.param
