"""Revoking an operator's key: a token that it has given out is good for nobody any more, and all are told so."""

import secrets
from pathlib import Path

from dsmt.operations.write import tokens

from .test_revoking import Seat, seated


def test_a_token_that_nobody_has_used_ends_with_the_key_below_which_its_own_stands(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        program = seat.made.identity(f"operator/eve.{secrets.token_hex(4)}", parent=seat.stolen)
        eve = await seat.connection(program.name, identity=program)
        given = await tokens.create(eve, seat.stolen, reason="for db-1")
        ended = await tokens.create(eve, seat.stolen, reason="for db-2")
        await tokens.revoke(eve, ended.token, reason="posted")
        kept, dropped = await seat.ended()
        assert kept == ["config/colour", "service/web/spec"]
        assert dropped == sorted(f"trust/token/{one.token}" for one in (given, ended))
        listed = {one.token: one for one in await tokens.listing(await seat.made.client("operator/late", reads=True))}
        assert (listed[given.token].state, listed[given.token].by) == ("revoked", "alice")
        assert (listed[ended.token].state, listed[ended.token].by) == ("revoked", "eve, signed by alice")

    seated(tmp_path, test)
