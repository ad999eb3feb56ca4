"""Reads the documentation's sources, and what the code answers out of the code's syntax trees."""

from __future__ import annotations

import ast
import csv
import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from autopush.tests import TREE

DOCS = TREE / "docs"


# ---------------------------------------------------------------------------------- documentation


def pages() -> dict[str, str]:
    """The sources of all pages by name, such as ``api/db``."""
    return {
        str(path.relative_to(DOCS).with_suffix("")): path.read_text("utf-8")
        for path in sorted(DOCS.rglob("*.rst"))
        if "_build" not in path.parts
    }


class Block(NamedTuple):
    """An indented part of a page."""

    page: str
    line: int
    text: str


def blocks(directive: str, css_class: str | None = None) -> list[Block]:
    """All blocks of a directive, with the class that marks them for a test.

    :param directive: with its argument, such as ``code-block:: console``
    """
    found = []
    for page, text in pages().items():
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if line.strip() != f".. {directive}":
                continue
            margin = len(line) - len(line.lstrip())
            body = []
            for after in lines[number + 1 :]:
                if after.strip() and len(after) - len(after.lstrip()) <= margin:
                    break
                body.append(after)
            options = {row.strip() for row in body if row.strip().startswith(":")}
            if css_class is not None and f":class: {css_class}" not in options:
                continue
            indent = min((len(row) - len(row.lstrip()) for row in body if row.strip()), default=0)
            content = [row[indent:] for row in body if row.strip() not in options]
            found.append(Block(page, number + 1, "\n".join(content).strip("\n") + "\n"))
    return found


def captioned(page: str) -> dict[str, str]:
    """The examples of a page that are whole files, by the names they have there."""
    lines = pages()[page].splitlines()
    kinds = set(re.findall(r"^ *\.\. (code-block:: \w+)$", pages()[page], re.MULTILINE))
    found = {}
    for block in (block for kind in kinds for block in blocks(kind) if block.page == page):
        name = re.fullmatch(r" *:caption: (\S+)", lines[block.line])
        if name is not None:
            found[name[1]] = block.text
    return found


def table(css_class: str) -> list[list[str]]:
    """The rows of the csv-table with this class, literals without their quotes."""
    (block,) = blocks("csv-table::", css_class)
    rows = csv.reader(block.text.splitlines(), skipinitialspace=True)
    return [[re.sub(r"^``(.*)``$", r"\1", cell) for cell in row] for row in rows if row]


# ------------------------------------------------------------------------------------------- code


class Unknown:
    """A value that is known only when the program runs."""

    def __repr__(self) -> str:
        return "<>"


ANY: Any = Unknown()

World = dict[str, bool]
"""How conditions turn out, by their source."""


class Emission(NamedTuple):
    """Something the code can answer."""

    status: Any
    errno: Any
    text: Any
    where: str


class Module:
    """A module's tree and namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.namespace = vars(importlib.import_module(name))
        path = Path(self.namespace["__file__"])
        self.tree = ast.parse(path.read_text("utf-8"))
        self.functions = list(_functions(self.tree))
        self.imports = {
            node.module for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom)
        }

    @property
    def defined(self) -> set[str]:
        """Names of all functions and methods."""
        return {function.name for function in self.functions}


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


class Scope(NamedTuple):
    """Where an expression stands, and what is known about the parameters there."""

    module: Module
    function: Function | None
    env: dict[str, Any]


def name_of(call: ast.Call) -> str:
    """Last part of what is called."""
    func = call.func
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def parameters(function: Function) -> dict[str, ast.expr | None]:
    """Names and defaults, without ``self``."""
    args = function.args
    plain = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(args.defaults))
    named = dict(zip(plain, [*defaults, *args.defaults], strict=True))
    named.update(zip((arg.arg for arg in args.kwonlyargs), args.kw_defaults, strict=True))
    named.pop("self", None)
    return named


def bind(names: Iterable[str], call: ast.Call) -> dict[str, ast.expr]:
    """Which argument is for which parameter."""
    bound = dict(zip(names, call.args, strict=False))
    bound.update({word.arg: word.value for word in call.keywords if word.arg})
    return bound


def in_all_worlds(evaluate: Callable[[World], Any]) -> list[Any]:
    """Evaluate with every outcome of the conditions met."""
    pending: list[World] = [{}]
    results = []
    while pending:
        given = pending.pop()
        world = dict(given)
        results.append(evaluate(world))
        met = list(world)[len(given) :]
        for number, test in enumerate(met):
            pending.append({name: world[name] for name in [*given, *met[:number]]} | {test: False})
    return results


def value(node: ast.expr | None, scope: Scope, world: World) -> Any:
    """Evaluate as far as possible without running anything."""
    if node is None:
        return None
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(value(part, scope, world)) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return value(node.value, scope, world)
    if isinstance(node, ast.IfExp):
        chosen = node.body if world.setdefault(ast.dump(node.test), True) else node.orelse
        return value(chosen, scope, world)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (value(part, scope, world) for part in (node.left, node.right))
        return str(left) + str(right)
    if isinstance(node, ast.Name):
        return _name(node.id, scope, world)
    return ANY


def _name(name: str, scope: Scope, world: World) -> Any:
    if name in scope.env:
        return scope.env[name]
    if scope.function is not None:
        if name in parameters(scope.function):
            return ANY
        assigned = [
            node.value
            for node in ast.walk(scope.function)
            if isinstance(node, ast.Assign)
            and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)
        ]
        if assigned:
            return value(assigned[0], scope, world) if len(assigned) == 1 else ANY
    found = scope.module.namespace.get(name, ANY)
    return found if isinstance(found, str | int) else ANY


Reader = Callable[[ast.AST, Scope, World], Emission | None]
"""Tells what a node answers, if it answers anything."""


def _is_given(names: Iterable[str], call: ast.Call) -> bool:
    """Whether the first parameter is what stands before the dot, as in ``session.refuse()``."""
    of = call.func.value if isinstance(call.func, ast.Attribute) else None
    return isinstance(of, ast.Name) and of.id == next(iter(names), None)


class Program:
    """Modules that are looked at together."""

    def __init__(self, names: Iterable[str]) -> None:
        self.modules = [Module(name) for name in names]

    def emissions(self, wanted: Callable[[ast.AST], bool], read: Reader) -> list[Emission]:
        """Everything the code can answer according to ``read``, in the nodes that are wanted."""
        found = []
        for module in self.modules:
            inside = set()
            for function in module.functions:
                nodes = list(ast.walk(function))
                inside |= {id(node) for node in nodes}
                nodes = [node for node in nodes if wanted(node)]
                scopes = self._scopes(module, function, depth=4) if nodes else []
                found += [one for node in nodes for one in self._at(node, scopes, read)]
            for node in ast.walk(module.tree):
                if id(node) not in inside and wanted(node):
                    found += self._at(node, [Scope(module, None, {})], read)
        return found

    @staticmethod
    def _at(node: ast.AST, scopes: list[Scope], read: Reader) -> Iterator[Emission]:
        for scope in scopes:

            def answer(world: World, scope: Scope = scope) -> Emission | None:
                return read(node, scope, world)

            yield from (one for one in in_all_worlds(answer) if one is not None)

    def _scopes(self, module: Module, function: Function, depth: int) -> list[Scope]:
        """What the parameters of a function can be: one scope for each call of it."""
        names = parameters(function)
        scopes = []
        for caller, inside, call in self._calls(module, function):
            bound = bind(list(names)[_is_given(names, call) :], call)
            outer = self._scopes(caller, inside, depth - 1) if inside and depth else []
            for scope in outer or [Scope(caller, inside, {})]:

                def env(world: World, scope: Scope = scope, bound: Any = bound) -> dict[str, Any]:
                    here = Scope(module, function, {})
                    return {
                        name: value(bound[name], scope, world)
                        if name in bound
                        else value(default, here, world)
                        for name, default in names.items()
                    }

                scopes += [Scope(module, function, known) for known in in_all_worlds(env)]
        return scopes or [Scope(module, function, {})]

    def _calls(
        self, module: Module, function: Function
    ) -> Iterator[tuple[Module, Function | None, ast.Call]]:
        if not parameters(function):
            return
        for caller in self.modules:
            own = caller is module
            if not own and (module.name not in caller.imports or function.name in caller.defined):
                continue
            for inside in caller.functions:
                for node in ast.walk(inside):
                    if isinstance(node, ast.Call) and name_of(node) == function.name:
                        yield caller, inside, node
