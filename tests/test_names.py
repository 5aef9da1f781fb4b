"""A public name lives in one module, so that a reader who meets it knows where to look."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from places import ROOT

ENTRY_POINTS = {"main", "run", "add_flags"}  # of commands


def public_names(path: Path) -> set[str]:
    """Functions, classes and constants that a module defines at its top level."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def test_a_public_name_lives_in_one_module() -> None:
    homes = defaultdict(list)
    for package in ("simdep", "realrun", "dashboard"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in public_names(path) - ENTRY_POINTS:
                homes[name].append(path.relative_to(ROOT).as_posix())
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
