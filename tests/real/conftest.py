"""What the tests on real processes share."""

import asyncio

import pytest

from dsmt.operations.local.home.home import Home
from tests.real.bystander import Shared, begin
from tests.real.fleet import end
from tests.real.https import serving, write_certificate


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A realm with a bystander, whose nodes trust the certificate of an https server."""
    directory = tmp_path_factory.mktemp("shared")
    home, certificate = Home(directory / "home"), directory / "both.pem"
    write_certificate(certificate)
    with serving(certificate) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        try:
            asyncio.run(begin(home))
            yield Shared(home, server)
        finally:
            asyncio.run(end(home))
