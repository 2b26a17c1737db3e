"""Addresses as text: a host and a port in one word, and taken apart again."""

import pytest

from dsmt.event.addresses import host_of, host_port, is_number


@pytest.mark.parametrize(
    ("host", "whole", "number"),
    [
        ("192.0.2.7", "192.0.2.7:7600", True),
        ("2001:db8::7", "[2001:db8::7]:7600", True),
        ("b1.example", "b1.example:7600", False),
        ("10", "10:7600", True),
        ("10.1", "10.1:7600", True),
        ("10.0.0.300", "10.0.0.300:7600", False),
        ("10.0.0.1.2", "10.0.0.1.2:7600", False),
        ("10..1", "10..1:7600", False),
        ("fe80::1%eth0", "[fe80::1%eth0]:7600", True),
        ("a:b", "[a:b]:7600", False),
    ],
)
def test_a_host_and_a_port_are_one_word_and_the_host_is_found_in_it(host: str, whole: str, number: bool) -> None:
    assert host_port(host, 7600) == whole
    assert host_of(whole) == host
    assert is_number(host) is number
