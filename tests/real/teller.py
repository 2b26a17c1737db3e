"""An operator's program that says one thing after the other, and prints what was acknowledged: `teller.py HOME BROKER`.

Each line is the id of an event and the level of its acknowledgement. It begins at the broker that is named, by `HOST:PORT`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dsmt.errors import DsmtError
from dsmt.operations.connection import connect
from dsmt.operations.local.home.home import Home
from dsmt.ports.bus import Draft


async def tell(home: Home, address: str) -> None:
    realm = home.realm()
    first = [one for one in realm.addresses if one.address == address]
    async with connect(home.operator(), realm, brokers=first) as connection:
        number = 0
        while True:
            number += 1
            emission = connection.bus.emit(Draft("user/told", {"number": number}))
            try:
                ack = await emission.acknowledged()
            except DsmtError:
                continue
            sys.stdout.write(f"{emission.id} {ack.level.value}\n")
            sys.stdout.flush()
            await asyncio.sleep(0.03)


if __name__ == "__main__":
    asyncio.run(tell(Home(Path(sys.argv[1])), sys.argv[2]))
