"""What an asyncio event loop offers and the simulation refuses, by name, with what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NoReturn, Protocol, TypeVar

_NETWORK: Final = "it opens a real socket; use the Network port"
_NAMES: Final = "it asks a real name server; use the Network port"
_PROCESSES: Final = "it starts a real process; use the Processes port"
_THREAD: Final = "it starts a real thread; do the work in place, or use a port"
_SIGNALS: Final = "it touches real signals; use the Processes port"
_FILES: Final = "it watches a real file descriptor; use a port"
_LOOP: Final = "the simulation decides that"

REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "add_reader": _FILES,
        "add_writer": _FILES,
        "connect_accepted_socket": _NETWORK,
        "connect_read_pipe": _FILES,
        "connect_write_pipe": _FILES,
        "create_connection": _NETWORK,
        "create_datagram_endpoint": _NETWORK,
        "create_server": _NETWORK,
        "create_unix_connection": _NETWORK,
        "create_unix_server": _NETWORK,
        "getaddrinfo": _NAMES,
        "getnameinfo": _NAMES,
        "remove_reader": _FILES,
        "remove_signal_handler": _SIGNALS,
        "remove_writer": _FILES,
        "run_in_executor": _THREAD,
        "sendfile": _NETWORK,
        "set_default_executor": _THREAD,
        "set_task_factory": _LOOP,
        "sock_accept": _NETWORK,
        "sock_connect": _NETWORK,
        "sock_recv": _NETWORK,
        "sock_recv_into": _NETWORK,
        "sock_recvfrom": _NETWORK,
        "sock_recvfrom_into": _NETWORK,
        "sock_sendall": _NETWORK,
        "sock_sendfile": _NETWORK,
        "sock_sendto": _NETWORK,
        "start_tls": _NETWORK,
        "subprocess_exec": _PROCESSES,
        "subprocess_shell": _PROCESSES,
    }
)


class Refusing(Protocol):
    """What refuses."""

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise."""
        ...


Loop = TypeVar("Loop", bound=type[Refusing])


def refusing(loop: Loop) -> Loop:
    """Give a loop a method for each name of `REFUSED`, which refuses."""
    for name, why in REFUSED.items():
        setattr(loop, name, _refusal(name, why))
    return loop


def _refusal(name: str, why: str) -> Callable[..., NoReturn]:
    def refuse(self: Refusing, *_args: object, **_kwargs: object) -> NoReturn:
        self.refuse(name, why)

    refuse.__name__ = name
    refuse.__doc__ = f"Refused: {why}."
    return refuse
