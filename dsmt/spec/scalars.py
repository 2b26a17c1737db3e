"""One reader for each kind of single value: the words of a file in, a plain value out, `WrongValueError` if not.

A reader says what the value should be and, where a habit of YAML 1.1 or of a neighbour is behind it, what to write.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from dsmt.event.phrases import cut
from dsmt.spec import nodeset, quantities
from dsmt.spec.commands import split_command
from dsmt.spec.mistakes import WrongValueError
from dsmt.spec.shapes import KEY_PATTERNS, LAST_ID, NAME_PATTERN, PATH_PATTERN, PORT_NAME_PATTERN, USER_PATTERN, Single
from dsmt.spec.tree import Scalar, resolve

_LONGEST_SHOWN: Final = 60
_LONGEST_TEXT: Final = 65536
_YES_NO: Final = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9_]+")


def show(node: Scalar) -> str:
    """Return a value as it may be shown in a message."""
    return cut(node.text, _LONGEST_SHOWN)


def _text(node: Scalar, _: Single) -> str:
    value = resolve(node)
    if not isinstance(value, str):
        what = {bool: "true or false", type(None): "nothing"}.get(type(value), "a number")
        raise WrongValueError(f"`{show(node)}` is {what} in YAML, and a text is expected", f'quote it: "{show(node)}"')
    if "\0" in value:
        raise WrongValueError("the text holds a NUL character (U+0000), which no program can be given", "remove it")
    if len(value) > _LONGEST_TEXT:
        raise WrongValueError(f"the text has {len(value)} characters, and {_LONGEST_TEXT} are the limit", "use an artifact")
    return value


def _name(node: Scalar, _: Single) -> str:
    value = _text(node, _)
    if not re.fullmatch(NAME_PATTERN, value):
        close = re.sub(r"[^a-z0-9._-]+", "-", value.lower()).strip("-._")[:63]
        message = f"`{show(node)}` is not a name: 1-63 of a-z 0-9 - . _, a letter or digit at both ends"
        raise WrongValueError(message, f"{close}?" if close else "")
    return value


def _port_name(node: Scalar, _: Single) -> str:
    value = resolve(node)
    if not isinstance(value, str) or not re.fullmatch(PORT_NAME_PATTERN, value):
        raise WrongValueError(f"`{show(node)}` is not the name of a port", "ports: {http: 8080}, then its name: http")
    return value


def _flag(node: Scalar, _: Single) -> bool:
    value = resolve(node)
    if isinstance(value, bool):
        return value
    ours = _YES_NO.get(node.text.lower())
    if ours is not None:
        raise WrongValueError(f"`{node.text}` is a text in YAML 1.2, not {ours}", f"write {ours}")
    raise WrongValueError(f"`{show(node)}` is neither true nor false", "write true or false")


def number(node: Scalar) -> int | float:
    """Return the number a plain scalar is; bool, quoted numbers and leading zeros are refused."""
    if node.plain and _LEADING_ZERO.fullmatch(node.text):
        digits = node.text.lstrip("+-0_").replace("_", "") or "0"
        message = f"`{node.text}` was octal in YAML 1.1 and is decimal in 1.2"
        raise WrongValueError(message, f"write {digits}, without the 0")
    value = resolve(node)
    if isinstance(value, bool) or not isinstance(value, int | float):
        quoted = not node.plain and re.fullmatch(r"-?\d+(\.\d+)?", node.text)
        raise WrongValueError(f"`{show(node)}` is not a number", "remove the quotes" if quoted else "")
    if not math.isfinite(value):
        raise WrongValueError(f"`{show(node)}` is no number that can be counted with", "write digits, as in 1 or 0.5")
    return value


def bounded(value: float, low: float | None, high: float | None, spell: Callable[[float], str]) -> None:
    """Raise when a value is outside its bounds (inclusive)."""
    if low is not None and not value >= low:
        raise WrongValueError(f"{spell(value)} is too small", f"at least {spell(low)}")
    if high is not None and not value <= high:
        raise WrongValueError(f"{spell(value)} is too large", f"at most {spell(high)}")


def _plain_number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def whole(node: Scalar, low: float | None, high: float | None) -> int:
    """Return a whole number within bounds."""
    value = number(node)
    if isinstance(value, float):
        raise WrongValueError(f"`{show(node)}` is not a whole number", "")
    bounded(value, low, high, str)
    return value


def _whole(node: Scalar, shape: Single) -> int:
    return whole(node, shape.low, shape.high)


def _real(node: Scalar, shape: Single) -> float:
    if re.fullmatch(r"\d+m", node.text):
        raise WrongValueError(f"`{node.text}` is not a number", f"write {int(node.text[:-1]) / 1000:g}")
    value = float(number(node))
    bounded(value, shape.low, shape.high, _plain_number)
    return value


def _duration(node: Scalar, shape: Single) -> float:
    value = quantities.parse_duration(node.text)
    bounded(value, shape.low, shape.high, quantities.format_duration)
    return value


def _size(node: Scalar, _: Single) -> int:
    return quantities.parse_size(node.text)


def _share(node: Scalar, shape: Single) -> dict[str, Any]:
    if node.text.endswith("%"):
        return {"count": None, "percent": quantities.parse_percent(node.text)}
    return {"count": whole(node, shape.low, shape.high), "percent": None}


def _percent(node: Scalar, _: Single) -> float:
    return quantities.parse_percent(node.text)


def _command(node: Scalar, _: Single) -> tuple[str, ...]:
    return split_command(_text(node, _))


def _signal(node: Scalar, _: Single) -> str:
    return quantities.parse_signal(node.text)


def _path(node: Scalar, _: Single) -> str:
    value = _text(node, _)
    if not re.fullmatch(PATH_PATTERN, value) or len(value) > 4096:
        raise WrongValueError(f"`{show(node)}` leads out of the instance's directory", "a relative path without `..`")
    return value


def _directory(node: Scalar, _: Single) -> str:
    value = _text(node, _)
    if not value or len(value) > 4096:
        raise WrongValueError("a path is expected", "`.` is the instance's own directory")
    return value


def _sha256(node: Scalar, _: Single) -> str:
    value = node.text.lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise WrongValueError(f"`{show(node)}` is not a SHA-256: 64 hexadecimal digits", "see sha256sum")
    return value


def _octal(node: Scalar, _: Single) -> str:
    if isinstance(resolve(node), int | float) and not node.text.startswith("0o"):
        raise WrongValueError(f"`{show(node)}` is a number in YAML, and not octal in 1.2", f'quote it: "{show(node)}"')
    value = node.text.removeprefix("0o")
    if not re.fullmatch(r"0?[0-7]{3,4}", value):
        raise WrongValueError(f"`{show(node)}` is not a file mode", 'quoted octal, as in "0644"')
    return value if value.startswith("0") else f"0{value}"


def _url(node: Scalar, _: Single) -> str:
    value = _text(node, _)
    scheme, colon, rest = value.partition(":")
    if not value or len(value) > 4096 or "\n" in value:
        raise WrongValueError("a path, `https:` or `depot:` is expected", "")
    if scheme == "file" and colon:
        raise WrongValueError("`file:` is not used here", f"write the path: {re.sub('^/*(?=/)', '', rest)}")
    if scheme == "http" and colon:
        raise WrongValueError("`http:` is not fetched", "use https:, or fetch it yourself and write its path here")
    if re.fullmatch(r"[a-z][a-z0-9+]+", scheme) and rest.startswith("//") and scheme != "https":
        raise WrongValueError(f"`{scheme}:` is not fetched", "a path, https: or depot:")
    if (scheme == "https" and not re.match(r"//[^/\s]+", rest)) or (value == "depot:"):
        raise WrongValueError(f"`{show(node)}` is not complete", "https://host/path, or depot:NAME")
    return value


def _image(node: Scalar, _: Single) -> str:
    value = _text(node, _)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}", value):
        raise WrongValueError(f"`{show(node)}` is not an OCI reference", "as in docker.io/library/nginx:1.27")
    return value


def _node_set(node: Scalar, _: Single) -> str:
    try:
        return nodeset.format_expression(nodeset.parse(_text(node, _)))
    except nodeset.NodeSetError as error:
        raise WrongValueError(f"{error.message} (character {error.column})", error.next) from error


def _cel(node: Scalar, _: Single) -> str:
    value = _text(node, _).strip()
    if not value or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", value):
        raise WrongValueError(f"`{show(node)}` alone is not a condition", f'node.labels["{show(node)}"] == "true"?')
    return value


def _address(node: Scalar, _: Single) -> str:
    value = _text(node, _)
    if value == "*":
        raise WrongValueError("`*` is not an address", "0.0.0.0 listens everywhere")
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if re.fullmatch(r"(?!\d+(\.\d+)*$)[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", value):
            return value
        raise WrongValueError(f"`{show(node)}` is not an address", "as in 127.0.0.1, 0.0.0.0 or a host name") from None


def _user(node: Scalar, _: Single) -> str:
    value = node.text if type(resolve(node)) is int else _text(node, _)
    if not re.fullmatch(USER_PATTERN, value):
        raise WrongValueError(f"`{show(node)}` is neither a user name nor a uid", "as in www-data, 1000 or 1000:100")
    if any(one.isdecimal() and int(one) > LAST_ID for one in value.split(":")):
        raise WrongValueError(f"`{show(node)}` is too large for a uid", f"at most {LAST_ID}")
    return value


def _status(node: Scalar, _: Single) -> list[list[int]]:
    ranges = []
    for part in node.text.replace(" ", "").split(","):
        match = re.fullmatch(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise WrongValueError(f"`{show(node)}` is not a range of HTTP status codes", "as in 200-399 or 200,204")
        ranges.append([int(match[1]), int(match[2] or match[1])])
    return ranges


def _spread(node: Scalar, _: Single) -> str:
    if node.text not in {"node", "none"} and not re.fullmatch(r"label:[^\s]{1,63}", node.text):
        raise WrongValueError(f"`{show(node)}` is not a way to spread", "node, none or label:KEY")
    return node.text


def _exit_or_signal(node: Scalar, _: Single) -> int | str:
    if node.text.startswith("signal:"):
        return "signal:" + quantities.parse_signal(node.text.removeprefix("signal:"))
    return whole(node, 0, 255)


def _reload(node: Scalar, _: Single) -> dict[str, Any]:
    try:
        return {"signal": quantities.parse_signal(node.text), "command": None}
    except WrongValueError:
        return {"signal": None, "command": _command(node, _)}


def _env(node: Scalar, _: Single) -> str | None:
    value = resolve(node)
    if isinstance(value, bool):
        raise WrongValueError(f"`{node.text}` is a truth value in YAML; programs spell it differently",
                              f'quote it: "{node.text}"')  # fmt: skip
    if value is None:
        return None
    if node.plain and _LEADING_ZERO.fullmatch(node.text):
        message = f"`{node.text}` is a number with a leading zero, which YAML 1.1 and 1.2 read differently"
        raise WrongValueError(message, f'quote it: "{node.text}"')
    return node.text if isinstance(value, int | float) else _text(node, _)


def _variable(node: Scalar, _: Single) -> str:
    value = _text(node, _)
    if not re.fullmatch(KEY_PATTERNS["variable"], value):
        raise WrongValueError(f"`{show(node)}` is not the name of a variable", "letters, digits and _")
    return value


def _flag_or_size(node: Scalar, _: Single) -> bool | int:
    if isinstance(resolve(node), bool) or node.text.lower() in _YES_NO:
        return _flag(node, _)
    if not re.match(r"[-+.]?\d", node.text):
        raise WrongValueError(f"`{show(node)}` is neither true nor false", "write true: `{data}` is where the directory is")
    return quantities.parse_size(node.text)


def _request_path(node: Scalar, _: Single) -> str:
    value = _text(node, _)
    if not value.startswith("/"):
        raise WrongValueError(f"`{show(node)}` is not the path of a request, which begins with `/`", f"/{show(node)}?")
    return value


def _header_value(node: Scalar, _: Single) -> str:
    value = _text(node, _)
    if {"\r", "\n"} & set(value):
        raise WrongValueError("a line break in a header's value begins another header", "write it on one line")
    return value


READERS: Final[Mapping[str, Callable[[Scalar, Single], Any]]] = {
    "name": _name, "port_name": _port_name, "text": _text, "flag": _flag, "whole": _whole, "real": _real,
    "duration": _duration, "size": _size, "share": _share, "percent": _percent, "command": _command,
    "signal": _signal, "path": _path, "directory": _directory, "sha256": _sha256, "octal": _octal, "url": _url,
    "image": _image, "node_set": _node_set, "cel": _cel, "address": _address, "user": _user, "status": _status,
    "spread": _spread, "exit_or_signal": _exit_or_signal, "reload": _reload, "env": _env,
    "flag_or_size": _flag_or_size, "variable": _variable,
    "request_path": _request_path, "header_value": _header_value,
}  # fmt: skip
