"""Single values: which text of a file becomes which value, and what to write where it is none."""

from typing import get_args

import pytest

from dsmt.spec.mistakes import WrongValueError
from dsmt.spec.scalars import READERS, show
from dsmt.spec.shapes import Single, SingleKind
from dsmt.spec.tree import Scalar


def read(kind, text, low=None, high=None):
    """Read a text as it stands in a file; one in double quotes is quoted."""
    quoted = text.startswith('"')
    return READERS[kind](Scalar(text.strip('"') if quoted else text, not quoted, 1, 1), Single(kind, low, high))


def test_every_kind_of_value_has_its_reader():
    assert set(READERS) == set(get_args(SingleKind))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("name", "web-1.a_b", "web-1.a_b"), ("name", "a" * 63, "a" * 63), ("port_name", "http", "http"),
        ("port_name", '"a-1"', "a-1"), ("text", '"3"', "3"), ("text", "a b", "a b"), ("text", '""', ""),
        ("text", "x" * 65536, "x" * 65536), ("flag", "true", True), ("flag", "False", False),
        ("whole", "12", 12), ("whole", "-3", -3), ("whole", "0x10", 16), ("whole", "0", 0), ("real", "3", 3.0),
        ("real", "1.5", 1.5), ("duration", "1h30m", 5400.0), ("size", "1KiB", 1024), ("percent", "25%", 25.0),
        ("share", "2", {"count": 2, "percent": None}), ("share", "2.5%", {"count": None, "percent": 2.5}),
        ("command", "./x 'a b'", ("./x", "a b")), ("signal", "int", "SIGINT"), ("signal", "SIGHUP", "SIGHUP"),
        ("path", "a/b..c", "a/b..c"), ("path", "..a", "..a"), ("path", "x" * 4096, "x" * 4096),
        ("directory", "/srv", "/srv"), ("directory", "x" * 4096, "x" * 4096),
        ("sha256", "AB" * 32, "ab" * 32), ("sha256", "sha256:" + "ab" * 32, "ab" * 32),
        ("octal", '"0644"', "0644"), ("octal", '"755"', "0755"), ("octal", "0o600", "0600"), ("octal", '"04755"', "04755"),
        ("octal", '"0o0600"', "0600"),
        ("url", "a/b.tar", "a/b.tar"), ("url", "https://h/x", "https://h/x"), ("url", "depot:x", "depot:x"),
        ("url", "http", "http"), ("url", "file", "file"), ("url", "x" * 4096, "x" * 4096), ("url", "c:x", "c:x"),
        ("image", "h.io/l/nginx:1@sha256", "h.io/l/nginx:1@sha256"), ("node_set", "minus( a,b )", "minus(a, b)"),
        ("cel", " node.x > 1 ", "node.x > 1"), ("address", "127.0.0.1", "127.0.0.1"), ("address", '"::0:1"', "::1"),
        ("address", "h-1.example", "h-1.example"), ("user", "www-data", "www-data"), ("user", "1000", "1000"),
        ("user", "4294967294", "4294967294"), ("user", "1:2", "1:2"), ("user", "m$", "m$"), ("status", "200", [[200, 200]]),
        ("status", "200-299, 404", [[200, 299], [404, 404]]), ("spread", "label:rack", "label:rack"),
        ("spread", "none", "none"), ("exit_or_signal", "3", 3), ("exit_or_signal", "255", 255),
        ("exit_or_signal", "signal:kill", "signal:SIGKILL"),
        ("reload", "hup", {"signal": "SIGHUP", "command": None}),
        ("reload", "./r x", {"signal": None, "command": ("./r", "x")}),
        ("env", "1.50", "1.50"), ("env", "text", "text"), ("env", "null", None), ("env", '"null"', "null"),
        ("env", '"0022"', "0022"), ("env", "no", "no"), ("env", "0", "0"), ("variable", "A_1", "A_1"),
        ("flag_or_size", "true", True), ("flag_or_size", "5GiB", 5 * 2**30),
    ],
)  # fmt: skip
def test_a_text_of_a_file_is_read_as_its_value(kind, text, value):
    found = read(kind, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "text", "message", "hint"),
    [
        ("name", "Web Shop!", "`Web Shop!` is not a name", "web-shop?"), ("name", '"!!"', "is not a name", ""),
        ("name", "A" * 64, "is not a name", "a" * 63 + "?"), ("name", "3", "a number in YAML", 'quote it: "3"'),
        ("text", "true", "`true` is true or false in YAML", 'quote it: "true"'),
        ("text", "~", "`~` is nothing in YAML", 'quote it: "~"'), ("text", "1.5", "`1.5` is a number", 'quote it: "1.5"'),
        ("text", '"a\0b"', "NUL", "remove it"), ("text", "x" * 65537, "65537 characters, and 65536", "use an artifact"),
        ("port_name", "8080", "is not the name of a port", "ports: {http: 8080}, then its name: http"),
        ("port_name", "Http", "is not the name of a port", "ports: {http: 8080}, then its name: http"),
        ("flag", "Yes", "`Yes` is a text in YAML 1.2, not true", "write true"), ("flag", "y", "not true", "write true"),
        ("flag", "on", "not true", "write true"), ("flag", "n", "not false", "write false"),
        ("flag", "off", "not false", "write false"), ("flag", "no", "not false", "write false"),
        ("flag", "1", "`1` is neither true nor false", "write true or false"),
        ("flag_or_size", "yes", "not true", "write true"), ("flag_or_size", "5", "no unit", "5KiB, 5MiB or 5GiB?"),
        ("whole", "007", "`007` was octal in YAML 1.1", "write 7, without the 0"),
        ("whole", "00", "was octal", "write 0, without the 0"), ("whole", '"3"', "is not a number", "remove the quotes"),
        ("whole", '"-3.5"', "is not a number", "remove the quotes"), ("whole", '"x"', "`x` is not a number", ""),
        ("whole", "true", "`true` is not a number", ""), ("whole", "1.0", "`1.0` is not a whole number", ""),
        ("real", "250m", "`250m` is not a number", "write 0.25"), ("real", "x", "`x` is not a number", ""),
        ("path", "/x", "leads out of the instance's directory", "a relative path without `..`"),
        ("path", "a/../b", "leads out", "a relative path without `..`"),
        ("path", "x" * 4097, "leads out", "a relative path without `..`"),
        ("directory", '""', "a path is expected", "`.` is the instance's own directory"),
        ("directory", "x" * 4097, "a path is expected", "`.` is the instance's own directory"),
        ("sha256", "ab" * 31, "is not a SHA-256", "see sha256sum"),
        ("sha256", "xy" * 32, "is not a SHA-256", "see sha256sum"),
        ("octal", "0644", "`0644` is a number in YAML", 'quote it: "0644"'),
        ("octal", "rw-r--r--", "`rw-r--r--` is not a file mode", 'quoted octal, as in "0644"'),
        ("octal", '"0999"', "`0999` is not a file mode", 'quoted octal, as in "0644"'),
        ("url", '""', "a path, `https:` or `depot:` is expected", ""), ("url", "x" * 4097, "is expected", ""),
        ("url", '"a\nb"', "is expected", ""), ("url", "file:///srv/x", "`file:` is not used here", "write the path: /srv/x"),
        ("url", "file:x", "`file:` is not used here", "write the path: x"),
        ("url", "http://h/x", "`http:` is not fetched", "use https:, or fetch it yourself and write its path here"),
        ("url", "s3://b/x", "`s3:` is not fetched", "a path, https: or depot:"),
        ("url", "https:x", "`https:x` is not complete", "https://host/path, or depot:NAME"),
        ("url", "https:///x", "is not complete", "https://host/path, or depot:NAME"),
        ("url", '"depot:"', "is not complete", "https://host/path, or depot:NAME"),
        ("image", "a b", "`a b` is not an OCI reference", "as in docker.io/library/nginx:1.27"),
        ("node_set", "minus(a)", "takes 2 parts, not 1 (character 1)", "minus(a, b)"),
        ("cel", "gpu", "`gpu` alone is not a condition", 'node.labels["gpu"] == "true"?'),
        ("cel", '" "', "alone is not a condition", 'node.labels[" "] == "true"?'),
        ("address", "*", "`*` is not an address", "0.0.0.0 listens everywhere"),
        ("address", '"1.2.3"', "`1.2.3` is not an address", "as in 127.0.0.1, 0.0.0.0 or a host name"),
        ("address", "a_b", "is not an address", "as in 127.0.0.1, 0.0.0.0 or a host name"),
        ("user", "a b", "`a b` is neither a user name nor a uid", "as in www-data, 1000 or 1000:100"),
        ("user", "true", "is true or false in YAML", 'quote it: "true"'),
        ("user", "4294967295", "`4294967295` is too large for a uid", "at most 4294967294"),
        ("user", '"99999999999"', "`99999999999` is too large for a uid", "at most 4294967294"),
        ("user", "-1", "is neither a user name nor a uid", "as in www-data, 1000 or 1000:100"),
        ("status", "600", "`600` is not a range of HTTP status codes", "as in 200-399 or 200,204"),
        ("status", "300-200", "is not a range", "as in 200-399 or 200,204"),
        ("status", "200,", "is not a range", "as in 200-399 or 200,204"),
        ("spread", "label:", "`label:` is not a way to spread", "node, none or label:KEY"),
        ("spread", "label:" + "x" * 64, "is not a way to spread", "node, none or label:KEY"),
        ("exit_or_signal", "256", "256 is too large", "at most 255"),
        ("exit_or_signal", "-1", "-1 is too small", "at least 0"),
        ("exit_or_signal", "signal:no", "`no` is not a signal", "name one: TERM, INT, HUP, USR1 ..."),
        ("reload", "a | b", "pipes", "quote it, or write it as a list: [sh, -c, '...']"),
        ("env", "True", "`True` is a truth value in YAML", 'quote it: "True"'),
        ("env", "0022", "`0022` is a number with a leading zero", 'quote it: "0022"'),
        ("env", '"a\0"', "NUL", "remove it"),
        ("variable", "A-B", "`A-B` is not the name of a variable", "letters, digits and _"),
        ("variable", "null", "is nothing in YAML", 'quote it: "null"'),
    ],
)  # fmt: skip
def test_a_text_that_is_no_such_value_is_answered_with_what_to_write(kind, text, message, hint):
    with pytest.raises(WrongValueError) as caught:
        read(kind, text)
    assert message in caught.value.message
    assert caught.value.next == hint


DIGITS = "write digits, as in 1 or 0.5"


@pytest.mark.parametrize(
    ("kind", "low", "high", "within", "beyond"),
    [
        ("whole", 2, 4, ["2", "4"], {"1": "at least 2", "5": "at most 4"}),
        ("share", 2, 4, ["2", "4", "1%"], {"1": "at least 2", "5": "at most 4"}),
        (
            "real",
            0.5,
            4.0,
            ["0.5", "4"],
            {"0.49": "at least 0.5", "4.01": "at most 4", ".nan": DIGITS, ".inf": DIGITS, "-.inf": DIGITS},
        ),
        ("duration", 1.5, 90.0, ["1s500ms", "90s"], {"1s": "at least 1s500ms", "2m": "at most 1m30s"}),
    ],
)
def test_bounds_are_within_and_named_as_they_are_written(kind, low, high, within, beyond):
    for text in within:
        read(kind, text, low, high)
    for text, hint in beyond.items():
        with pytest.raises(WrongValueError) as caught:
            read(kind, text, low, high)
        assert caught.value.next == hint


def test_a_long_value_is_shown_cut():
    assert show(Scalar("x" * 60, True, 1, 1)) == "x" * 60
    assert len(show(Scalar("x" * 99, True, 1, 1))) == 60
