"""The screen of certificates, as it is printed."""

from types import SimpleNamespace
from typing import Any, Never

import pytest

from dsmt.cli import cert
from dsmt.errors import RefusedError
from dsmt.operations.local.members.certificates import HeldCertificate
from dsmt.operations.write.revoking import EndedKey
from tests.cli.screens import check


def ended(name: str, by: str, reason: str, *, key: str = "0123456789abcdef") -> EndedKey:
    return EndedKey(key=key, name=name, by=by, at="2026-11-20T09:00:00.000Z", reason=reason, signer="root")


def test_certificates_are_shown_with_what_is_to_be_done() -> None:
    def held(name: str, state: str, *, here: bool, revoked: EndedKey | None = None) -> HeldCertificate:
        times = {"issued": "2026-01-01T00:00:00Z", "renew": "2026-07-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z"}
        more = {"here": here, "revoked": revoked, **times}
        return HeldCertificate(name=name, key="0123456789abcdef", state=state, issuer="root", **more)  # type: ignore[arg-type]

    agent_name = "agent/a-node-with-a-long-name.example.com/web/app/0"
    check(
        "certs",
        cert.listed(
            [
                held("operator/alice", "ok", here=True),
                held("node/n1", "renew", here=True),
                held("node/n2", "renew", here=False),
                held(agent_name, "expired", here=True),
                held("controller/c1", "revoked", here=False, revoked=ended("controller/c1", "operator/alice", "stolen")),
                held("node/n3", "revoked", here=False, revoked=ended("issuer/c1", "bob", "", key="fedcba9876543210")),
                HeldCertificate(
                    name="", key="fedcba9876543210", state="revoked", issued=None, renew=None, expires=None, issuer=None,
                    here=False, revoked=ended("", "bob", "in a log", key="fedcba9876543210"),
                ),
            ]
        ),
    )  # fmt: skip


def test_who_is_refused_for_anything_but_its_own_time_is_told_that_and_no_list_of_what_its_home_has() -> None:
    def refuses(_work: object) -> Never:
        raise RefusedError("trust.revoked", "operator/alice was revoked")

    ctx: Any = SimpleNamespace(home=lambda: None, ask=refuses)
    with pytest.raises(RefusedError, match="operator/alice was revoked"):
        cert._known(ctx)
