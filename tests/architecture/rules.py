"""What the floors forbid, found in a module's syntax tree: each rule returns its complaints as sentences."""

import ast
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from types import ModuleType

from .floors import (
    BEHIND_A_PORT,
    BESIDE,
    IMPURE_ATTRIBUTES,
    IMPURE_CALLS,
    IN_ANY_ORDER,
    LOOP_ONLY,
    NO_ORDER,
    OUTSIDE,
    PORTS,
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
        return [f"{module} is in no room: put it into one of its kind, or add its room to tests/architecture/floors.py"]
    wrong = []
    for target, name, line in imports(module, text, known):
        if target.split(".")[0] != "dsmt":
            continue
        there = place(target)
        if there is None:
            wrong.append(f"{module}:{line} imports {target}, which is in no room")
        elif there.floor > here.floor:
            wrong.append(f"{module}:{line} (floor {here.floor}) imports {target} from floor {there.floor} above it")
        elif there.floor == here.floor and there.room != here.room and there.room not in OUTSIDE:
            wrong.append(f"{module}:{line} imports {target}, another room on the same floor {here.floor}")
        elif there.kind not in BESIDE[here.kind] and here.kind not in PORTS.get(there.room, ()):
            wrong.append(f"{module}:{line}, {_A[here.kind]}, imports {target}, which is {_A[there.kind]}")
        elif here.kind == "pure" and there.room == "dsmt.ports" and name in interfaces(known.get(target, "")):
            wrong.append(f"{module}:{line} imports the interface {name}: what is pure is given values, and holds no port")
    return wrong


def around_a_port(module: str, text: str, known: Mapping[str, str]) -> list[str]:
    """Imports of what stands behind a port, by who does not put it together."""
    wrong = []
    for behind, makers in BEHIND_A_PORT.items():
        if any(_within(module, room) for room in (behind, *makers)):
            continue
        wrong += [
            f"{module}:{line} imports {target}: of {behind} only its port is known here (dsmt.ports), or dsmt.programs.bus"
            for target, _, line in imports(module, text, known)
            if _within(target, behind)
        ]
    return wrong


def _within(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


_A = {"pure": "a pure module", "shell": "a shell", "adapter": "an adapter", "machine": "a machine", "any": "a way out"}


def longer_than(most: int, text: str) -> list[str]:
    """The functions of a module that have more lines than that."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    lines = [(node, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]
    return [f"{node.name} at line {node.lineno} has {count} lines" for node, count in lines if count > most]


def interfaces(text: str) -> set[str]:
    """The protocols that a module of ports defines."""
    return {
        node.name
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)
    }


def impure(module: str, text: str) -> list[str]:
    """What a pure module must not do: I/O, clock, randomness, `await`; and what a shell must leave to ports."""
    here = place(module)
    if here is None or here.kind in ("any", "adapter"):
        return []
    wrong = []
    waits = here.kind == "shell"
    allowed = SHELL_IMPORTS if waits else PURE_IMPORTS
    tree = ast.parse(text)
    for target, name, line in imports(module, text, {}):
        prefixes = {".".join(target.split(".")[:n]) for n in range(1, target.count(".") + 2)}
        known = "dsmt" in prefixes or prefixes & allowed or f"{target}.{name}" in allowed
        if not known and not (target in PURE_PARTS and (not name or name.startswith(PURE_PARTS[target]))):
            wrong.append(
                f"{module}:{line} imports {target}: what touches the outside belongs into an adapter behind a port"
                f" (if it does not touch it, name it in PURE_IMPORTS)"
            )
        if name and known and "dsmt" not in prefixes:
            wrong += [f"{module}:{line} imports {one}" for one in _outside(f"{target}.{name}", allowed)]
        if "random" in name:
            wrong.append(f"{module}:{line} imports {name}: randomness comes from the entropy port")
        if target == "asyncio" and name in LOOP_ONLY:
            wrong.append(f"{module}:{line} imports {name} of asyncio, which touches the outside")
    names = _names(module, tree)
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith() if not waits:
                wrong.append(f"{module}:{node.lineno} is async, but stands below the line")
            case ast.Call(func=ast.Name(id=called)) if called in IMPURE_CALLS:
                wrong.append(f"{module}:{node.lineno} calls {called}()")
            case ast.Call(func=ast.Attribute(value=base, attr="time")) if "loop" in ast.unparse(base):
                wrong.append(f"{module}:{node.lineno} asks the loop for the time: it comes from the clock port")
            case ast.Attribute():
                wrong += [f"{module}:{node.lineno} uses {one}" for one in _outside(_full(node, names), allowed)]
    return wrong


def _names(module: str, tree: ast.AST) -> dict[str, str]:
    """What the names of a module that it has imported from elsewhere stand for, with dots."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(
                {
                    one.asname or one.name.split(".")[0]: one.name if one.asname else one.name.split(".")[0]
                    for one in node.names
                }
            )
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.update({one.asname or one.name: f"{node.module}.{one.name}" for one in node.names})
    return names


def _full(node: ast.Attribute, names: Mapping[str, str]) -> str:
    """`dt.datetime.now` as `datetime.datetime.now`; empty for what was not imported."""
    parts = [node.attr]
    base: ast.expr = node.value
    while isinstance(base, ast.Attribute):
        parts.append(base.attr)
        base = base.value
    if not isinstance(base, ast.Name) or base.id not in names or names[base.id].startswith("dsmt"):
        return ""
    return ".".join([names[base.id], *reversed(parts)])


def _outside(full: str, allowed: frozenset[str]) -> Iterator[str]:
    """What a dotted name touches that it may not."""
    parts = full.split(".")
    if len(parts) < 2:
        return
    base, attribute = ".".join(parts[:-1]), parts[-1]
    if base in PURE_PARTS:
        if not attribute.startswith(PURE_PARTS[base]):
            yield full
    elif attribute in IMPURE_ATTRIBUTES:
        yield f"{full}, which differs from run to run"
    elif base == "asyncio" and attribute in LOOP_ONLY:
        yield f"{full}, which touches the outside"
    elif (found := _module(full)) is not None and not any(found == one or found.startswith(f"{one}.") for one in allowed):
        yield f"{full}, which is the module {found}"


@cache
def _module(full: str) -> str | None:
    """The module that a dotted name stands for, if it is one."""
    base, _, attribute = full.rpartition(".")
    try:
        found = getattr(import_module(base), attribute, None)
    except ImportError:
        return None
    return found.__name__ if isinstance(found, ModuleType) else None


def unordered(module: str, text: str) -> list[str]:
    """Where a module below the line lets the order of a set, or an address, decide."""
    here = place(module)
    if here is None or here.kind not in ("pure", "machine"):
        return []
    tree = ast.parse(text)
    wrong = []
    harmless = {
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in IN_ANY_ORDER
        for argument in call.args
    }
    for found in ast.walk(tree):
        if isinstance(found, ast.Set):
            harmless |= {id(one.value) for one in found.elts if isinstance(one, ast.Starred)}
    for scope, sets in _scopes(tree):
        for node in scope:
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
            wrong += [f"{module}:{one.lineno} loops over a set: sort it first" for one in looped if is_set(one, sets)]
    return wrong


def _scopes(tree: ast.Module) -> Iterator[tuple[list[ast.AST], set[str]]]:
    """Each function's nodes, and the rest of the module's, with the names that are plainly sets there."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    fields = {
        ast.unparse(node.target) if isinstance(node.target, ast.Attribute) else f"self.{ast.unparse(node.target)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and _says_set(node.annotation)
    }
    inside: set[int] = set()
    for function in functions:
        nodes = list(ast.walk(function))
        inside |= {id(node) for node in nodes}
        arguments = function.args.args + function.args.kwonlyargs
        sets = fields | {one.arg for one in arguments if one.annotation is not None and _says_set(one.annotation)}
        for node in nodes:
            if isinstance(node, ast.Assign) and is_set(node.value, sets):
                sets |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _says_set(node.annotation):
                sets.add(node.target.id)
        yield nodes, sets
    yield [node for node in ast.walk(tree) if id(node) not in inside], fields


def _says_set(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).split("[")[0] in ("set", "frozenset", "AbstractSet")


def is_set(node: ast.expr, sets: Collection[str] = ()) -> bool:
    """Whether an expression is plainly a set."""
    match node:
        case ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.Name() | ast.Attribute():
            return ast.unparse(node) in sets
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub(), right=right):
            return any(is_set(one, sets) or is_keys(one) for one in (left, right))
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


def circle(known: Mapping[str, str], part: Callable[[str], str] = str) -> list[str]:
    """One circle of imports, if there is any; with `part`, of what it makes of a module's name, such as its folder."""
    graph: dict[str, set[str]] = {}
    for module, text in known.items():
        found = {part(target) for target, _, _ in imports(module, text, known) if target in known}
        graph.setdefault(part(module), set()).update(found - {part(module)})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []
