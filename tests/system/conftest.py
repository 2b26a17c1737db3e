"""A small disk, for tests of what happens when it is full."""

import subprocess

import pytest


@pytest.fixture
def small_disk(tmp_path):
    """A directory on a file system of 256 KiB. Mounting it needs root, as the project's CI has."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
