"""A spec as the text of a service file: `parse(to_yaml(spec))` gives the same spec again."""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from dsmt.spec.records import ServiceSpec
from dsmt.spec.tree import BLANK
from dsmt.spec.writing import document


class _Representer(SafeRepresenter):
    """Quotes texts with characters that only look like spaces, or that a terminal is shown as they are escaped.

    Of the others one of several lines is written as it is, in a block, unless it ends in empty ones, which a block may lose.
    """


def _text(representer: _Representer, text: str) -> Any:
    is_quoted = re.search(BLANK, text) or not re.sub(r"[\n\t]", "", text).isprintable()
    is_block = "\n" in text and re.search(r"\S\n?\Z", text)
    style = '"' if is_quoted else "|" if is_block else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Representer.add_representer(str, _text)


def to_yaml(spec: ServiceSpec) -> str:
    """Return a service file in block style that `parse` reads back as the same spec, its components as screens list them."""
    held = document(spec)
    held["components"] = dict(sorted(held["components"].items()))
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # its stub knows only None
    yaml.width = 4096
    yaml.Representer = _Representer
    out = io.StringIO()
    yaml.dump(held, out)
    return out.getvalue()
