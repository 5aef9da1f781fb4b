"""A public name stands for one thing: it is declared in one module of the three packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from places import ROOT

PACKAGES = ("simdep", "realrun", "dashboard")
OF_COMMANDS = {"main", "run", "add_flags", "HELP", "EXAMPLES"}  # every command has its own


def declared(tree: ast.Module) -> Iterator[str]:
    """The names of functions, classes and values at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_no_public_name_is_declared_in_two_modules() -> None:
    modules: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for name in declared(ast.parse(path.read_text())):
                if not name.startswith("_"):
                    modules.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    twice = {name: sorted(places) for name, places in modules.items() if len(places) > 1}
    assert not {name: places for name, places in twice.items() if name not in OF_COMMANDS}
