"""What needs IPv6: a kernel, or a container, may have none."""

import pytest

from dsmt.operations.local.home.addresses import is_here

on_ipv6 = pytest.mark.skipif(not is_here("::1"), reason="this machine has no IPv6")
