"""Users: who a program runs as, what it is told of itself, and whether it can enter its directory.

Rule 1: `user` of a component is a name or a uid, with `:gid` if need be; a name brings its primary and its other groups.
Rule 2: only root becomes somebody else; anybody else runs programs as itself only.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from typing import Any, Final, NamedTuple

from dsmt.errors import FailedError
from dsmt.event.reason import failed

ANY: Final = "any"
UMASK: Final = 0o022
LAST_ID: Final = 2**32 - 2


class Account(NamedTuple):
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def account_of(user: str) -> Account | None:
    """Whom a program is to become; None when that is who we are already, or nobody in particular (empty).

    Raises `FailedError` (`install.user`) for a user that this node has not, or cannot become (rule 2).
    """
    if not user:
        return None
    found = _find(user)
    if found.uid == os.geteuid() and found.gid in (os.getegid(), *os.getgroups()):
        return None
    if os.geteuid() != 0:
        raise _refused(user, f"only root can, and this node's processes run as uid {os.geteuid()}")
    return found


def environment_of(user: str) -> dict[str, str]:
    """What login(1) would tell a user's programs; nothing for nobody in particular."""
    if not user:
        return {}
    found = _find(user)
    return {"HOME": found.home, "USER": found.name, "LOGNAME": found.name}


def users_here() -> tuple[str, ...]:
    """As whom programs can be run here: `any`, or the names of this process's own user."""
    if os.geteuid() == 0:
        return (ANY,)
    return tuple(dict.fromkeys((name_of(os.geteuid()), str(os.geteuid()))))


def name_of(uid: int) -> str:
    """The name of a user; of one that has none here, the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def becoming(account: Account | None) -> dict[str, Any]:
    """The arguments of `subprocess.Popen` that make a child this user."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": list(account.groups), "umask": UMASK}


def check_way(directory: str, account: Account) -> None:
    """Raise `FailedError` that names the first directory on the way which this user cannot enter; one may not be there."""
    parts = directory.split("/")
    for count in range(1, len(parts) + 1):
        place = "/".join(parts[:count]) or "/"
        try:
            seen = os.stat(place)
        except (FileNotFoundError, NotADirectoryError):
            return
        if not _may_enter(seen, account):
            said = f"it cannot enter {place}, on the way to {directory}"
            advice = f"keep the realm elsewhere (DSMT_HOME), or let others through: chmod o+x {place}"
            raise _refused(account.name, said, advice)


def _may_enter(seen: os.stat_result, account: Account) -> bool:
    if seen.st_uid == account.uid:
        return bool(seen.st_mode & stat.S_IXUSR)
    if seen.st_gid in (account.gid, *account.groups):
        return bool(seen.st_mode & stat.S_IXGRP)
    return bool(seen.st_mode & stat.S_IXOTH)


def _find(user: str) -> Account:
    """The account of a name or number (rule 1)."""
    word, _, group = user.partition(":")
    if any(one.isdecimal() and int(one) > LAST_ID for one in (word, group)):  # -1 in 32 bits would be nobody else
        raise _refused(user, f"there is no user {user}, for ids end at {LAST_ID}", "correct `user`")
    try:
        entry = pwd.getpwuid(int(word)) if word.isdecimal() else pwd.getpwnam(word)
    except KeyError:
        if not word.isdecimal():
            advice = f"make the user {word} on <node>, or correct `user`"
            raise _refused(user, f"there is no user {word} here", advice) from None
        return Account(word, int(word), int(group or word), (), "/")
    if group:
        return Account(entry.pw_name, entry.pw_uid, int(group), (), entry.pw_dir)
    groups = {one.gr_gid for one in grp.getgrall() if entry.pw_name in one.gr_mem} | {entry.pw_gid}
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(sorted(groups)), entry.pw_dir)


def _refused(user: str, error: str, advice: str = "") -> FailedError:
    return failed("install.user", user=user, error=error, advice=advice)
