"""What the floors forbid, found in a module's syntax tree: each rule returns its complaints as sentences."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from .floors import (
    IMPURE_ATTRIBUTES,
    IMPURE_CALLS,
    IN_ANY_ORDER,
    NO_ORDER,
    OUTSIDE,
    PURE_IMPORTS,
    PURE_PARTS,
    ROOT,
    SHELL_IMPORTS,
    place,
)


def sources() -> dict[str, str]:
    """Every module of dsmt with its text."""
    found = {}
    for path in sorted((ROOT / "dsmt").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path.read_text()
    return found


def imports(module: str, text: str, known: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """What a module imports: (module, name or "", line). A name that is itself a module of dsmt counts as that module."""
    package = module if any(name.startswith(f"{module}.") for name in known) else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full, "", node.lineno) if full in known else (base, alias.name, node.lineno)


def upwards(module: str, text: str, known: Mapping[str, str]) -> list[str]:
    """Imports within dsmt that the floors do not allow."""
    here = place(module)
    if here is None:
        said = (
            f"{module} is on no floor: add it to PURE, SHELLS or ADAPTERS in tests/architecture/floors.py (whose docstring"
        )
        return [f"{said} says which it is), or its room to ROOMS"]
    wrong = []
    for target, _, line in imports(module, text, known):
        if target.split(".")[0] != "dsmt":
            continue
        there = place(target)
        if there is None:
            wrong.append(f"{module}:{line} imports {target}, which is on no floor")
        elif there.floor > here.floor:
            wrong.append(f"{module}:{line} (floor {here.floor}) imports {target} from floor {there.floor} above it")
        elif there.floor == here.floor and there.room != here.room and (there.room not in OUTSIDE or here.kind != "any"):
            wrong.append(f"{module}:{line} imports {target}, another room on the same floor {here.floor}")
    return wrong


def impure(module: str, text: str) -> list[str]:
    """What a pure module must not do: I/O, clock, randomness, `await`; and what a shell must leave to ports."""
    here = place(module)
    if here is None or here.kind == "any":
        return []
    wrong = []
    allowed = PURE_IMPORTS if here.kind == "pure" else SHELL_IMPORTS
    tree = ast.parse(text)
    for target, name, line in imports(module, text, {}):
        prefixes = {".".join(target.split(".")[:n]) for n in range(1, target.count(".") + 2)}
        known = "dsmt" in prefixes or prefixes & allowed or f"{target}.{name}" in allowed
        if not known and not (target in PURE_PARTS and (not name or name.startswith(PURE_PARTS[target]))):
            wrong.append(
                f"{module}:{line} imports {target}: what touches the outside belongs into an adapter behind a port"
                f" (if it does not touch it, name it in PURE_IMPORTS)"
            )
        if "random" in name:
            wrong.append(f"{module}:{line} imports {name}: randomness comes from the entropy port")
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith() if here.kind == "pure":
                wrong.append(f"{module}:{node.lineno} is async, but stands below the line")
            case ast.Call(func=ast.Name(id=called)) if called in IMPURE_CALLS:
                wrong.append(f"{module}:{node.lineno} calls {called}()")
            case ast.Attribute(value=ast.Name(id=base), attr=attr) if _is_of_the_rest(base, attr):
                wrong.append(f"{module}:{node.lineno} uses {base}.{attr}")
            case ast.Attribute(value=ast.Name(id=base), attr=attr) if attr in IMPURE_ATTRIBUTES and base in {
                "datetime", "date", "bindings", "asyncio",
            }:  # fmt: skip
                wrong.append(f"{module}:{node.lineno} uses {base}.{attr}, which differs from run to run")
    return wrong


def _is_of_the_rest(base: str, attribute: str) -> bool:
    return base in PURE_PARTS and not attribute.startswith(PURE_PARTS[base])


def unordered(module: str, text: str) -> list[str]:
    """Where a pure module lets the order of a set, or an address, decide."""
    here = place(module)
    if here is None or here.kind != "pure":
        return []
    tree = ast.parse(text)
    harmless = {
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in IN_ANY_ORDER
        for argument in call.args
    }
    wrong = []
    for node in ast.walk(tree):
        looped: list[ast.expr] = []
        match node:
            case ast.Call(func=ast.Name(id="hash" | "id" as called)) if called == "hash" or module not in NO_ORDER:
                wrong.append(f"{module}:{node.lineno} calls {called}(): it differs from run to run")
            case ast.keyword(arg="key", value=ast.Name(id="hash" | "id" as called)):
                wrong.append(f"{module}:{node.value.lineno} orders by {called}(): it differs from run to run")
            case ast.For():
                looped = [node.iter]
            case ast.ListComp() | ast.DictComp() | ast.GeneratorExp() if id(node) not in harmless:
                looped = [generator.iter for generator in node.generators]
            case ast.Call(func=ast.Name(id="list" | "tuple" | "iter" | "enumerate" | "zip" | "map" | "filter")):
                looped = node.args if id(node) not in harmless else []
            case ast.Call(func=ast.Attribute(attr="join" | "fromkeys" | "extend")):
                looped = node.args
        wrong += [f"{module}:{one.lineno} loops over a set: sort it first" for one in looped if is_set(one)]
    return wrong


def is_set(node: ast.expr) -> bool:
    """Whether an expression is plainly a set."""
    match node:
        case ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub(), right=right):
            return any(is_set(one) or is_keys(one) for one in (left, right))
        case _:
            return False


def is_keys(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def undocumented(module: str, text: str) -> list[str]:
    """The module, public classes, functions and methods that have no docstring."""
    tree = ast.parse(text)
    wrong = [] if ast.get_docstring(tree) else [f"{module} has no docstring"]

    def look(body: list[ast.stmt], where: str) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
                marks = {ast.unparse(mark).rsplit(".", 1)[-1] for mark in node.decorator_list}
                if not ast.get_docstring(node) and not marks & {"override", "overload", "setter"}:
                    wrong.append(f"{where}.{node.name} (line {node.lineno}) has no docstring")
                if isinstance(node, ast.ClassDef):
                    look(node.body, f"{where}.{node.name}")

    look(tree.body, module)
    return wrong


def circle(known: Mapping[str, str]) -> list[str]:
    """One circle of imports, if there is any."""
    graph = {
        module: {target for target, _, _ in imports(module, text, known) if target in known and target != module}
        for module, text in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []
