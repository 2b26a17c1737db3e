"""Small service files, and the mistakes in them."""

import pytest

from dsmt.errors import InputError
from dsmt.spec.mistakes import SpecErrors
from dsmt.spec.parsing import parse

SMALL = """\
service: web
components:
  app:
    run: ./server --listen 127.0.0.1:{port.http}
    ports: {http: auto}
"""


def mistakes(text):
    with pytest.raises(SpecErrors) as caught:
        parse(text, file="web.yaml")
    assert isinstance(caught.value, InputError)
    return caught.value.mistakes


def component(body, extra=""):
    """Return a file with one component whose keys begin on line 4."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"service: web\ncomponents:\n  app:\n{lines}{extra}"


def only(text):
    (mistake,) = mistakes(text)
    return mistake


def one(body):
    """Return the component of a file with just these keys (a `run` is added)."""
    (spec,) = parse(component(f"run: ./server\n{body}"), file="f")
    return spec.components["app"]
