"""The networks on which every scenario of the bus is run."""

import pytest


@pytest.fixture(params=["memory", pytest.param("zeromq", marks=pytest.mark.real)])
def network_kind(request):
    return request.param
