r"""Commands: split a line by the shell's quoting rules, without a shell and without its surprises.

Rule 1: words are split at blanks; '...' is literal; in "..." a backslash escapes `"`, `\`, `$` and `` ` ``.
Rule 2: outside quotes, what only a shell could do ($ | > < ; & * ` and a leading ~) is refused with a hint.
Rule 3: nothing is expanded; placeholders are filled in later, argument by argument, so they cannot split.
"""

from __future__ import annotations

from typing import Final

from dsmt.spec.mistakes import WrongValueError
from dsmt.spec.shapes import MOST_WORDS

_SHELL_ONLY: Final = {
    "$": "no shell runs this, so `$` is not expanded",
    "|": "no shell runs this, so there are no pipes",
    ">": "no shell runs this, so nothing is redirected (see `logs`)",
    "<": "no shell runs this, so nothing is redirected",
    ";": "no shell runs this, so `;` does not start a second command",
    "&": "no shell runs this, so `&` does not chain or put in the background",
    "*": "no shell runs this, so `*` does not match files",
    "`": "no shell runs this, so nothing is substituted",
    "\n": "no shell runs this, so a second line is not a second command",
}
_HINT: Final = "quote it, or write it as a list: [sh, -c, '...']"
_BLANKS: Final = " \t\r"


def split_command(text: str) -> tuple[str, ...]:
    """Return the argument vector of a command line; raise `WrongValueError` for what needs a shell."""
    words: list[str] = []
    word: str | None = None
    line = text.strip(_BLANKS + "\n")
    at = 0
    while at < len(line):
        char = line[at]
        if char in _BLANKS:
            if word is not None:
                words.append(word)
            word, at = None, at + 1
            continue
        if char.isspace() and char != "\n":
            said = f"the character U+{ord(char):04X} looks like a space and does not separate words"
            raise WrongValueError(said, "write a space, or quote it")
        if char in _SHELL_ONLY:
            raise WrongValueError(_SHELL_ONLY[char], _HINT)
        if char == "~" and word is None:
            raise WrongValueError("no shell runs this, so `~` is not a home directory", _HINT)
        piece, at = _piece(line, at)
        word = (word or "") + piece
    if word is not None:
        words.append(word)
    argv = checked_argv(words)
    name, equals, value = argv[0].partition("=")
    if equals and name.isidentifier():
        said = f"no shell runs this, so `{name}=...` does not set a variable"
        raise WrongValueError(said, f"env: {{{name}: {value or '...'}}}")
    return argv


def _piece(line: str, at: int) -> tuple[str, int]:
    """Return one quoted part or one character from `at`, and where the next begins."""
    char = line[at]
    if char == "'":
        end = line.find("'", at + 1)
        if end < 0:
            raise WrongValueError("a single quote is not closed", "close it with '")
        return line[at + 1 : end], end + 1
    if char == '"':
        return _double_quoted(line, at + 1)
    if char == "\\":
        if at + 1 == len(line):
            raise WrongValueError("a backslash ends the command", "remove it, or double it")
        following = line[at + 1]
        return ("" if following == "\n" else following), at + 2
    return char, at + 1


def _double_quoted(line: str, at: int) -> tuple[str, int]:
    out: list[str] = []
    while at < len(line):
        char = line[at]
        if char == '"':
            return "".join(out), at + 1
        if char == "\\" and at + 1 < len(line) and line[at + 1] in '"\\$`':
            at += 1
            char = line[at]
        out.append(char)
        at += 1
    raise WrongValueError("a double quote is not closed", 'close it with "')


def checked_argv(words: list[str]) -> tuple[str, ...]:
    """Return the words as an argument vector, or say why they cannot be one."""
    if not words or not words[0]:
        raise WrongValueError("the command is empty", "name a program")
    if any("\0" in word for word in words):
        raise WrongValueError("a command cannot hold a NUL character", "remove it")
    if len(words) > MOST_WORDS:
        raise WrongValueError(f"the command has {len(words)} words, and {MOST_WORDS} are the most", "put them into a file")
    return tuple(words)


def join_command(argv: tuple[str, ...]) -> str:
    """Return one line that `split_command` reads back as `argv`; single quotes where they are needed."""
    return " ".join(_quoted(word) for word in argv)


def _quoted(word: str) -> str:
    safe = word and not any(c.isspace() or c in _SHELL_ONLY or c in "'\"\\" for c in word)
    if safe and not word.startswith("~"):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"
