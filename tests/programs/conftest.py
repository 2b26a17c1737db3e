"""A node for the tests of the spawner."""

import ctypes

import pytest

from tests.programs.spawned import Node


@pytest.fixture
def node(tmp_path):
    # A test before may have made this process a subreaper; then it, and not init, would inherit and see ends.
    assert ctypes.CDLL(None).prctl(36, 0, 0, 0, 0) == 0
    (tmp_path / "node").mkdir()
    made = Node(tmp_path / "node")
    yield made
    made.end()
