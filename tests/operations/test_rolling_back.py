"""Rolling back: what is said of artifacts that are gone."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from dsmt.bus.client.client import BusClient
from dsmt.event.kinds.service import SpecFact
from dsmt.operations.read.realm.sight import look
from dsmt.operations.write import applying
from dsmt.operations.write.rolling_back import rollback
from tests.controllers.build import spec, web

from .test_past import run


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_rollback_to_what_needs_an_artifact_that_is_in_the_depot_no_more_says_so(tmp_path: Path, is_kept: bool) -> None:
    digest = sha256(b"content").digest()

    async def content() -> AsyncIterator[bytes]:
        yield b"content"

    async def work(alice: BusClient, _: BusClient) -> None:
        needs = f"artifact: {{url: 'depot:a.tar', sha256: '{digest.hex()}'}}\n"
        for text in (web(1, component=needs), web(1)):
            fact = SpecFact(spec=spec(text), by="alice", reason="")
            await applying.say_spec(alice, await look(alice), fact, "web")
        if is_kept:
            await alice.put_blob(content(), digest)
        done = await rollback(alice, "web", 4, by="alice", reason="")
        gone = "r4 names a.tar, which is in the depot no more: it is not installed where no node has kept it"
        assert done.warnings == ([] if is_kept else [f"{gone}; next: apply its file again, with that"])

    run(tmp_path, work)
