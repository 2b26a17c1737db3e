"""What a gate asks JetStream in the place of who may not read everything (`rules.nats_reads`): of several gates one does."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Final, Never

from nats.aio.msg import Msg

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.headers import DESCRIPTION, STATUS
from dsmt.bus.nats.hearing import Hearing
from dsmt.bus.nats.link import Publication
from dsmt.bus.rules.nats_reads import passed_on
from dsmt.errors import RefusedError, TransportError
from dsmt.logs import Logger

_INBOXES: Final = "_INBOX_"
"""Where answers go, and nowhere else: whoever asks names the subject."""


class NatsQuestions:
    """Those that a gate is asked. `ready` is set when it hears them."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus, self._subjects = bus, bus.subjects
        self._hearing = Hearing(bus, {bus.subjects.questions: self._asked}, queue="gate")
        self.ready = self._hearing.begun
        self._log = Logger(gate=bus.source)

    async def run(self) -> Never:
        """Pass on what is asked, until cancelled."""
        await self._hearing.run()

    async def _asked(self, message: Msg) -> None:
        if message.reply.startswith(_INBOXES):
            with suppress(TransportError):  # who asks does so again
                await self._pass_on(message)

    async def _pass_on(self, message: Msg) -> None:
        link, question = await self._bus.held(), self._subjects.question(message.subject)
        try:
            asked = Publication(f"$JS.API.{question.asked}", passed_on(self._subjects, question, message.data), {})
        except RefusedError as error:
            self._log.warning("not asked", name=question.name, reason=error.message)
            said = {"error": {"code": 403, "description": error.message}}
            asked = Publication(message.reply, json.dumps(said).encode(), {STATUS: "403", DESCRIPTION: error.message})
            await link.send(asked)
        else:
            await link.send(asked, message.reply)
