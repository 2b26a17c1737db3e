"""Service files as plain values, for property tests: what an operator may write, in every shape of the table of keys."""

import functools
from typing import Any

from hypothesis import strategies as st

from dsmt.spec.crosscheck import LEAST_MEMORY
from dsmt.spec.keys import GROUPS
from dsmt.spec.quantities import format_duration, format_size, parse_size
from dsmt.spec.shapes import Health, ListOf, MapOf, Nested, Shape, Single, Step, WholeOr, Word

_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="{}\0", exclude_categories=["Cc", "Cs"]), max_size=12)
_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,6}[a-z0-9])?", fullmatch=True)
_SPECIAL = {  # groups and keys whose parts depend on each other; written by hand below
    "component": {"after", "apart", "near", "health", "secrets", "files", "artifact", "driver", "image", "term", "fence",
                  "on_partition", "stop", "limits", "reserve", "ports", "sockets", "update", "kind", "plan"},
}  # fmt: skip
_JOB = {"retries", "abort_on", "success_on", "checkpoint_exit_code", "timeout", "pre", "post", "parallel", "keep"}


def _pair(word: str, times: int) -> dict[str, int]:
    return {word: times}


def _scalar(shape: Single) -> st.SearchStrategy[Any]:
    low, high = shape.low or 0, shape.high or 1000
    sizes = st.integers(0, 2**50).map(format_size)
    commands = st.lists(_TEXTS, min_size=1, max_size=3).map(lambda words: ["x", *words])
    whole = st.integers(int(low), int(min(high, 1000)) if low < 1000 else int(low) + 5)
    strategies = {
        "name": _NAMES, "port_name": st.just("http"), "text": _TEXTS, "flag": st.booleans(),
        "whole": whole,
        "real": st.integers(int(low * 100) + 1, int(min(high, 10) * 100)).map(lambda n: n / 100),
        "duration": st.integers(int(low * 1000), int(min(high, 10**6) * 1000)).map(lambda n: format_duration(n / 1000)),
        "size": sizes, "share": st.integers(int(low), 9), "percent": st.integers(1, 100).map(lambda n: f"{n}%"),
        "command": st.just("./x {index} --now") | commands, "signal": st.sampled_from(["TERM", "HUP", "SIGINT"]),
        "path": st.sampled_from([".", "a/b", "x..y"]), "directory": st.sampled_from([".", "/srv/x"]),
        "sha256": st.just("ab" * 32), "octal": st.sampled_from(["0644", "755"]), "url": st.just("a.tar"),
        "image": st.just("nginx:1"), "node_set": st.sampled_from(["all_nodes", "limit(minus(a,failed), 3)"]),
        "cel": st.just('node.labels.gpu == "yes"'), "address": st.sampled_from(["0.0.0.0", "::1", "host-1.example"]),
        "user": st.sampled_from(["auto", 1000, "www-data"]), "status": st.sampled_from([200, "200-399", "200, 204"]),
        "spread": st.sampled_from(["none", "node", "label:rack"]), "variable": st.just("PATH"),
        "exit_or_signal": st.sampled_from([3, "signal:SEGV"]), "reload": st.just("HUP") | commands,
        "env": _TEXTS | st.integers(0, 99) | st.none() | st.just({"file": "/etc/x"}),
        "request_path": st.just("/r?a=b"), "header_value": _TEXTS,
        "flag_or_size": st.booleans() | st.integers(1, 2**40).map(format_size),
    }  # fmt: skip
    return strategies[shape.kind]


@functools.cache
def values(shape: Shape) -> st.SearchStrategy[Any]:
    """Return what may stand for a shape in a file."""
    match shape:
        case Single():
            return _scalar(shape)
        case Word(words):
            return st.sampled_from(words)
        case WholeOr(word, low, high):
            return st.just(word) | st.integers(low, min(high, 9))
        case Nested(group, short):
            whole = mapping(group)
            return whole | values(GROUPS[group][short].shape) if short else whole
        case ListOf(item, lone):
            several = st.lists(values(item), max_size=3)
            return several | values(item) if lone else several
        case MapOf(item, keys):
            names = {"variable": st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True)}.get(keys, _NAMES)
            return st.dictionaries(names, values(item), max_size=3)
        case Step(words):
            return st.builds(_pair, st.sampled_from(words), st.integers(1, 9))
        case Health():
            return mapping("check")
    raise AssertionError(shape)


@functools.cache
def mapping(group: str, *without: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return an object of a group: its required keys and any of the others."""
    rows = {k: v for k, v in GROUPS[group].items() if k not in without and k not in _SPECIAL.get(group, ())}
    return st.fixed_dictionaries(
        {name: values(key.shape) for name, key in rows.items() if key.required},
        optional={name: values(key.shape) for name, key in rows.items() if not key.required},
    )


@st.composite
def components(draw: st.DrawFn) -> dict[str, Any]:
    """Return one component without contradictions."""
    job = draw(st.booleans())
    out = draw(mapping("component", "run", *(() if job else _JOB)))
    out["run"] = draw(values(GROUPS["component"]["run"].shape))
    if job:
        out["kind"] = "job"
    out["instances"] = draw(st.integers(2, 9))
    if draw(st.booleans()):
        out["ports"] = {"http": draw(values(GROUPS["component"]["ports"].shape.item)), "b-2": "auto"}
        kind = draw(st.sampled_from(["http", "tcp", "exec", "notify"]))
        check = draw(mapping("check", "http", "tcp", "exec", "notify", "deadline"))
        check[kind] = draw(values(GROUPS["check"][kind].shape))
        roles = draw(st.lists(st.sampled_from(["startup", "readiness", "liveness"]), unique=True))
        out["health"] = dict.fromkeys(roles, check) if roles else {**check, "deadline": "9s"}
    if draw(st.booleans()):
        out["on_partition"] = draw(st.sampled_from(["at_least_one", "pinned"]))
        out.pop("restart", None)
    for key in ("stop", "limits", "update"):
        if draw(st.booleans()):
            out[key] = draw(mapping(key))
    if "memory" in out.get("limits", {}) and parse_size(str(out["limits"]["memory"])) < LEAST_MEMORY:
        out["limits"]["memory"] = format_size(LEAST_MEMORY)
    if out.get("data", False) is not False:
        out.get("update", {}).pop("order", None)
        if out.get("on_partition") != "at_least_one":
            out.pop("restart", None)
    if isinstance(out.get("restart"), dict) and "first" in out["restart"]:
        out["restart"].pop("cap", None)
    if "limits" not in out:
        out["reserve"] = draw(mapping("reserve"))
    if draw(st.booleans()):
        out["artifact"] = draw(values(GROUPS["component"]["artifact"].shape))
        out["files"] = [{"to": "a", "content": draw(_TEXTS), "mode": "0600"}]
    return out


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return one document of a service file that is right."""
    out = draw(mapping("service", "components", "defaults", "barriers", "kind"))
    names = draw(st.lists(_NAMES, min_size=1, max_size=3, unique=True))
    out["components"] = {name: draw(components()) for name in names}
    for name in names[1:]:
        if draw(st.booleans()):
            out["components"][name]["after"] = [names[0]]
    if draw(st.booleans()):
        out["barriers"] = {"b": {"min": 2}}
        out["components"][names[0]]["after"] = [{"barrier": "b"}]
    return out
