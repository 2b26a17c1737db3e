"""`help`, `completion`: what needs no realm, and explains the commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dsmt.cli import COMMANDS
from dsmt.cli.command import among, command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document, show
from dsmt.errors import InputError
from dsmt.operations.words.topics import EXAMPLES, TOPICS
from dsmt.spec.mistakes import nearest


@command("help")
@click.argument("topic", nargs=-1, shell_complete=among([*COMMANDS, *TOPICS]))
def help_on(ctx: CliContext, topic: tuple[str, ...]) -> None:
    """Explain TOPIC: a command (help node drain) or a word (help target). Without TOPIC, list both."""
    words = " ".join(topic)
    text = _overview() if not words else TOPICS[words] if words in TOPICS else _of_command(_as_typed(words))
    if ctx.json:
        document({"topic": words, "text": text, "examples": EXAMPLES.get(words, [])})
    else:
        show(text)


def _as_typed(words: str) -> tuple[str, ...]:
    """A command's words; of one that is written apart, as `node set`, the one that it is."""
    apart, joined = tuple(words.split()), words.replace(" ", "")
    return (joined,) if joined in COMMANDS and " ".join(apart) not in EXAMPLES else apart


def _overview() -> str:
    topics = [f"  {name:<12} {text.splitlines()[0]}" for name, text in TOPICS.items()]
    first = ["dsmt keeps services alive on a fleet of machines, and says why everything is as it is.", "", "First steps:"]
    steps = [f"  {line}" for line in EXAMPLES["up"] + EXAMPLES["apply"][:2] + EXAMPLES["status"][:1]]
    return "\n".join([*first, *steps, "", "Words:", *topics, "", "Commands: dsmt --help; one of them: dsmt help COMMAND"])


def _of_command(words: tuple[str, ...]) -> str:
    """A command's help and examples. Raises `InputError`."""
    from dsmt.cli.root import root  # noqa: PLC0415 - it imports this module

    found: click.Command = root()
    context = click.Context(found, info_name="dsmt", **found.context_settings)
    for word in words:
        below = found.get_command(context, word) if isinstance(found, click.Group) else None
        if below is None:
            begun = [" ".join(words[:count]) for count in range(len(words) - 1, 0, -1)]
            known_to = [*TOPICS, *COMMANDS, *EXAMPLES]
            meant = nearest(" ".join(words), known_to) or next((one for one in begun if one in known_to), "")
            known = f"did you mean dsmt help {meant}?" if meant else f"dsmt --help, or one of {', '.join(TOPICS)}"
            raise InputError("help.topic", f"there is no command or word `{' '.join(words)}`", next=known)
        found, context = below, click.Context(below, info_name=word, parent=context)
    examples = [f"  {line}" for line in EXAMPLES.get(" ".join(words), [])]
    return found.get_help(context) + ("\n\nExamples:\n" + "\n".join(examples) if examples else "")


@command()
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(ctx: CliContext, shell: str) -> None:
    """Print code that makes SHELL complete commands and recently seen names: source <(dsmt completion bash)."""
    from dsmt.cli.root import COMPLETING, root  # noqa: PLC0415 - it imports this module

    kind = get_completion_class(shell)
    if kind is None:
        raise InputError("shell.unknown", f"there is no completion for {shell}", next="bash, zsh or fish")
    text = kind(root(), {}, "dsmt", COMPLETING).source()
    if ctx.json:
        document({"shell": shell, "text": text})
    else:
        print(text)
