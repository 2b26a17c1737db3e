"""`python -m dsmt`: the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; the exit code."""
    try:
        from dsmt.cli.root import main as run  # noqa: PLC0415 - whoever imports this module for `main` pays nothing yet

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130  # while it was still being imported


if __name__ == "__main__":
    sys.exit(main())
