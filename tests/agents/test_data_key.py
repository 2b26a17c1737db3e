"""A data directory is told by the key that its node had when it was made."""

from __future__ import annotations

import pytest

from dsmt.agents.node.data_key import data_key
from dsmt.errors import FailedError

from .memory_machine import MemoryFiles


def test_data_is_the_same_after_its_nodes_key_was_rotated_and_another_directory_is_not():
    data = MemoryFiles()
    assert data_key(data, b"\x01") == "01"
    assert data_key(data, b"\x02") == "01"
    assert data_key(MemoryFiles(), b"\x02") == "02"


@pytest.mark.parametrize("damaged", [b"", b"0", b"\x00\x00", b"zz", b"0102", "é".encode()])
def test_a_key_that_is_damaged_makes_no_other_machine_of_its_node(damaged: bytes) -> None:
    data = MemoryFiles()
    data.write("KEY", damaged)
    assert data_key(data, b"\x01") == "01"
    assert data_key(data, b"\x02") == "01", "it is kept again"


def test_on_a_full_disk_it_is_the_nodes_own_and_kept_later():
    class Full(MemoryFiles):
        def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
            raise FailedError("fetch.no_space", f"{path} did not fit")

    content: dict[str, bytes] = {}
    assert data_key(Full(content), b"\x01") == "01"
    assert content == {}
    assert data_key(MemoryFiles(content), b"\x01") == "01"
    assert data_key(MemoryFiles(content), b"\x02") == "01"
