"""Reading: a whole small file, of which a program may have made anything: a pipe, a directory, a file without end.

And what is in a directory, which may go meanwhile, or be none.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 64 * 2**20
"""What is larger is no small file."""
OTHERS: Final = frozenset({errno.EISDIR, errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.ENXIO})
"""What says that something else stands there: a directory, a pipe, a file too large, a link to itself, a socket."""
_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing of a file, but of who would read it."""
_NO_DIRECTORY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def read_file(place: str) -> bytes:
    """The content of a file. Raises OSError, also for what is no file (who opens a pipe may wait for ever), or too large."""
    with open(os.open(place, _FLAGS), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no file", place)
        if status.st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"it is larger than {MOST_BYTES >> 20} MiB", place)
        return file.read()


def read_what_is_there(place: str) -> bytes | None:
    """The same; None where there is nothing that can be read. Raises OSError where who would read it is short of means."""
    try:
        return read_file(place)
    except OSError as error:
        if error.errno in _SCARCE:
            raise
        return None


def places_in(directory: Path, *, closed: bool = False) -> list[Path]:
    """What is in a directory; nothing in what is gone, or is none, and in a `closed` one. Raises OSError for all else."""
    try:
        return list(directory.iterdir())
    except OSError as error:
        if error.errno not in _NO_DIRECTORY and not (closed and error.errno == errno.EACCES):
            raise
        return []
