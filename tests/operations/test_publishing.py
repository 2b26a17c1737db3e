"""Publishing: an operator's own topics, and no others."""

import asyncio
from typing import cast

import pytest

from dsmt.errors import InputError
from dsmt.operations.write.publishing import publish
from dsmt.ports.bus import Bus


@pytest.mark.parametrize(
    "topic", ["config/brake", "service/web/control/app/0", "node/n1/control", "trust/x", "app/web/x", "user", "users/x"]
)
def test_only_topics_below_user_are_taken(topic: str) -> None:
    class Deaf:
        """Whatever is said here was not refused."""

    with pytest.raises(InputError, match="theirs begin with user/") as caught:
        asyncio.run(publish(cast("Bus", Deaf()), topic, "{}"))
    assert caught.value.next == f"publish on user/{topic}"


def test_what_is_no_text_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="the data is not UTF-8") as caught:
        asyncio.run(publish(cast("Bus", object()), "user/x", '{"a": "\udcff"}'))
    assert "in UTF-8" in caught.value.next


def test_what_is_nested_too_deep_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="nested too deep"):
        asyncio.run(publish(cast("Bus", object()), "user/x", "[" * 20_000))
