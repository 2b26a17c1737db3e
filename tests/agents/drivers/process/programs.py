"""Programs for the process driver, and what is known of them."""

import msgspec

from dsmt.ports.driver import Handle
from dsmt.ports.processes import ProcessIdentity


def who(instance):
    """Which process an instance is, by the process driver's handle."""
    return msgspec.convert(instance.handle, ProcessIdentity)


def handle_of(identity):
    return Handle(msgspec.to_builtins(identity))


def written(path, text, mode):
    """A file with this text."""
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


DAEMON = """
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        print(os.getpid(), flush=True)
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os.wait()
    time.sleep(600)
"""
