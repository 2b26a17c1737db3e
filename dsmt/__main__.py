"""`python -m dsmt`: the command line."""

from __future__ import annotations

import sys


def _incomplete(error: ImportError | SyntaxError) -> int:
    from dsmt.errors import incomplete  # noqa: PLC0415 - it needs nothing that may be missing

    told = incomplete(error, sys.executable)
    sys.stderr.write(f"dsmt: {told.message}. Next: {told.next}\n")
    return told.exit


def _interrupt(*_: object) -> None:
    """Interrupt what is at work, also where SIGINT is ignored."""
    import signal  # noqa: PLC0415 - as in `main`

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def main() -> int:
    """Run the command line; the exit code. An interrupt before its first line or after its last ends it without a word."""
    try:
        import os  # noqa: PLC0415 - here an interrupt is heard
        import signal  # noqa: PLC0415 - the same

        heard = signal.getsignal(signal.SIGINT)
        if heard is signal.default_int_handler:  # not where it is ignored, as in a shell's background
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        try:
            from dsmt.cli.root import main as run  # noqa: PLC0415 - whoever imports this module for `main` pays nothing yet
            from dsmt.system.garbage import collect_seldom, leave_all  # noqa: PLC0415 - the same
        except (ImportError, SyntaxError) as error:
            return _incomplete(error)

        collect_seldom()
        os.umask(0o022 | (os.umask(0o077) & 0o077))  # what we make is ours to use, and nobody else's to change
        quiet = signal.signal(signal.SIGINT, heard)
        signal.signal(signal.SIGTERM, _interrupt)  # it leaves nothing half written behind, and says what goes on
        try:
            return run(sys.argv[1:])
        finally:
            signal.signal(signal.SIGINT, quiet)
            leave_all()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
