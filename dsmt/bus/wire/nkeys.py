"""NKeys: Ed25519 keys as NATS writes them: base32 of a prefix, the key and a checksum (nats-io/nkeys).

Rule 1: a source's nkey is its own key, so that NATS knows it by what everybody knows it by. What a server has it sign is
    text, and nothing that dsmt believes begins like text: a signed statement is CBOR, whose first byte begins no UTF-8.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from dsmt.errors import UnusableEventError

_USER: Final = 20 << 3
_ACCOUNT: Final = 0
_WRITTEN: Final = 56
_CHECKED: Final = 33


def _written(raw: bytes) -> str:
    checked = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode()  # 35 bytes are 56 letters, and nothing is filled up


def user_nkey(public: bytes) -> str:
    """A public key, as a user is named: `U...`."""
    return _written(bytes([_USER]) + public)


def account_nkey(public: bytes) -> str:
    """A public key, as who issues users is named: `A...`."""
    return _written(bytes([_ACCOUNT]) + public)


def public_of(nkey: str) -> bytes:
    """The public key of a user. Raises `UnusableEventError` for what names none."""
    try:
        raw = base64.b32decode(nkey)[:_CHECKED] if len(nkey) == _WRITTEN else b""
    except (binascii.Error, ValueError):
        raw = b""
    if raw[:1] != bytes([_USER]) or _written(raw) != nkey:
        raise UnusableEventError("nats.nkey", f"{nkey[:80]!r} is not the key of a user")
    return raw[1:]
