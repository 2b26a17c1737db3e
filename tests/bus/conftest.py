"""The networks on which every scenario of the bus is run, and a store on SQLite."""

import pytest

from dsmt.bus.store.sqlite import SqliteStore


@pytest.fixture(params=["memory", pytest.param("zeromq", marks=pytest.mark.real)])
def network_kind(request):
    return request.param


@pytest.fixture
def store(tmp_path):
    made = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)
    yield made
    made.close()
