"""The house as it stands: code imports from below and from its own room, never upwards, never in a circle."""

import ast
import re
import subprocess
import sys

from .floors import ROOMS, ROOT
from .rules import around_a_port, circle, impure, longer_than, sources, undocumented, unordered, upwards

SOURCES = sources()


def complaints(rule):
    return "\n".join(wrong for module, text in SOURCES.items() for wrong in rule(module, text))


def test_modules_import_from_below_and_from_their_own_room_only():
    wrong = "\n".join(wrong for module, text in SOURCES.items() for wrong in upwards(module, text, SOURCES))
    assert not wrong, wrong


def test_of_a_bus_nobody_knows_more_than_the_port():
    wrong = "\n".join(wrong for module, text in SOURCES.items() for wrong in around_a_port(module, text, SOURCES))
    assert not wrong, wrong


def test_modules_below_the_line_touch_nothing_outside_and_shells_only_ports():
    wrong = complaints(impure)
    assert not wrong, wrong


def test_no_decision_depends_on_the_order_of_a_set_or_on_an_address():
    wrong = complaints(unordered)
    assert not wrong, wrong


def test_what_is_public_is_documented():
    wrong = complaints(undocumented)
    assert not wrong, wrong


def test_what_a_modules_docstring_refers_to_in_brackets_is_a_module_or_a_name_in_one():
    docstrings = {module: ast.get_docstring(ast.parse(text), clean=False) or "" for module, text in SOURCES.items()}
    there = {module.rpartition(".")[2] for module in SOURCES}
    for module, text in SOURCES.items():
        there.update(re.findall(r"\w+", text.replace(docstrings[module], "")))
    said = [(module, name) for module, text in docstrings.items() for name in re.findall(r"\(`([a-z]\w+)`\)", text)]
    assert [(module, name) for module, name in said if name not in there] == []


def test_no_modules_import_each_other_in_a_circle():
    assert not circle(SOURCES)


def test_no_folders_of_operations_import_each_other_in_a_circle():
    operations = {module: text for module, text in SOURCES.items() if module.startswith("dsmt.operations.")}
    assert not circle(operations, lambda module: module.rpartition(".")[0])


def test_every_room_is_there_and_has_something_in_it():
    assert not [room for room in ROOMS if not any(f"{module}.".startswith(f"{room}.") for module in SOURCES)]


def test_no_module_is_longer_than_a_sitting():
    """400 lines, of tests, benchmarks and scripts as well: what is longer is cut where its rules, or its subjects, part."""
    paths = [path for room in ("dsmt", "tests", "benchmarks", "scripts") for path in (ROOT / room).rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in paths}
    assert {path: count for path, count in lines.items() if count > 400} == {}


def test_no_function_is_longer_than_a_screen():
    """50 lines, with its parameters and its docstring."""
    long = "\n".join(f"{module}: {one}" for module, text in SOURCES.items() for one in longer_than(50, text))
    assert not long, long
    assert longer_than(2, "def f():\n    a = 1\n    return a\n") == ["f at line 1 has 3 lines"]


def test_what_is_above_rooms_holds_nothing_but_a_docstring():
    bare = [room for room in SOURCES if room not in ROOMS and any(one.startswith(f"{room}.") for one in ROOMS)]
    assert {"dsmt.bus", "dsmt.agents"} <= set(bare)
    assert not [room for room in bare if room != "dsmt" and len(ast.parse(SOURCES[room]).body) > 1]


def test_what_is_run_by_hand_finds_all_that_it_imports():
    """No test runs a benchmark, or has anything drawn anew: what was renamed below them is found here."""
    files = [path.relative_to(ROOT) for room in ("benchmarks", "scripts") for path in sorted((ROOT / room).glob("*.py"))]
    names = [".".join(path.with_suffix("").parts) for path in files if path.stem != "__main__"]
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
