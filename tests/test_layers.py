"""The layer rule, read off the imports: a room imports only from floors below its own.

A room is a package of simdep or one of the modules beside them. Within a room modules import each
other as they like, but never in a circle. realrun and dashboard stand above simdep and never import
each other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from places import ROOT

FLOORS = (
    (
        "simdep",
        "version",
        "arrays",
        "checks",
        "collector",
        "entry",
        "file_kinds",
        "files",
        "precedence",
        "schedule",
        "units",
    ),
    ("timeline", "costs", "completeness", "hardware"),
    ("scenario", "calibration", "traces"),
    ("simulation",),
    ("policies", "analysis"),
    ("prediction", "validation"),
    ("planning",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PACKAGES = ("simdep", "realrun", "dashboard")
FIGURES = "simdep.analysis.figures"
EXAMPLES = ROOT / "simdep" / "docs" / "examples"  # programs of users, no part of the package
FILES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if EXAMPLES not in path.parents
)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FILES
}


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str
    line: int
    is_deferred: bool  # in a function, or for types only

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def imports_of(name: str) -> Iterator[Import]:
    """Every import in a module; `from simdep import costs` imports simdep.costs."""
    tree = ast.parse(MODULES[name].read_text())
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    typed = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    inside = {id(node) for outer in (*functions, *typed) for node in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively; write the whole name"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [wanted if wanted in MODULES else str(node.module) for wanted in full]
        else:
            continue
        for imported in found:
            yield Import(name, imported, node.lineno, id(node) in inside)


IMPORTS = [found for name in MODULES for found in imports_of(name)]
OURS = [found for found in IMPORTS if found.imported.partition(".")[0] in PACKAGES]


def package(name: str) -> str:
    return name.partition(".")[0]


def room(name: str) -> str:
    """The room of a module of simdep; the package itself is one."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def test_every_room_has_a_floor() -> None:
    rooms = {room(name) for name in MODULES if package(name) == "simdep"}
    assert rooms == FLOOR.keys()


def test_a_room_imports_only_from_floors_below_its_own() -> None:
    wrong = []
    for found in OURS:
        if package(found.importer) != "simdep":
            continue
        above, below = room(found.importer), room(found.imported)
        if package(found.imported) != "simdep" or (
            above != below and FLOOR[below] >= FLOOR[above] > 0
        ):
            wrong.append(str(found))
    assert not wrong


@pytest.mark.parametrize("name", PACKAGES)
def test_modules_do_not_import_in_a_circle(name: str) -> None:
    left = {
        module: {found.imported for found in OURS if found.importer == module} - {module}
        for module in MODULES
        if package(module) == name
    }
    while free := {module for module, needed in left.items() if not needed & left.keys()}:
        left = {module: needed for module, needed in left.items() if module not in free}
    assert not left


def test_realrun_and_dashboard_do_not_import_each_other() -> None:
    pairs = {(package(found.importer), package(found.imported)) for found in OURS}
    assert not pairs & {("realrun", "dashboard"), ("dashboard", "realrun")}


def test_simdep_imports_neither_torch_nor_streamlit() -> None:
    heavy = [found for found in IMPORTS if package(found.imported) in ("torch", "streamlit")]
    assert not [str(found) for found in heavy if package(found.importer) == "simdep"]


def test_only_figures_imports_plotly_in_simdep() -> None:
    drawing = {found.importer for found in IMPORTS if package(found.imported) == "plotly"}
    assert not [name for name in drawing if name.startswith("simdep") and FIGURES not in name]


def test_simdep_imports_figures_only_where_a_picture_is_asked_for() -> None:
    outside = [found for found in OURS if FIGURES in found.imported and not found.is_deferred]
    assert not [
        str(found)
        for found in outside
        if package(found.importer) == "simdep" and FIGURES not in found.importer
    ]


@pytest.mark.parametrize(
    "modules",
    [
        "simdep.simulation.engine, simdep.policies",
        "simdep.analysis.summary, simdep.traces.export",
        "simdep.cli.run",
    ],
)
def test_simulating_loads_neither_torch_nor_streamlit_nor_plotly(modules: str) -> None:
    heavy = "{'torch', 'streamlit', 'plotly'}"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"
