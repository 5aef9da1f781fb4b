"""The layer rule, read off the imports: a module imports only from layers below its own.

cost forms, operations, kernels <- specs <- schedule <- (policies, costs, timeline) <- (engine, analytic, report,
trace, evaluate) <- (replay, reproduce) <- figures <- CLI; realrun and dashboard stand above simdep and never import
each other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYER = {
    "simdep": 0,  # the package itself: its docstring and version
    "simdep.checks": 0,
    "simdep.commands": 0,
    "simdep.commands.output": 0,
    "simdep.flags": 0,
    "simdep.gpus": 0,
    "simdep.schedule": 0,
    "simdep.skew": 0,
    "simdep.__main__": 1,
    "simdep.axes": 1,
    "simdep.costs": 1,
    "simdep.forms": 1,
    "simdep.models": 1,
    "simdep.policies.orders": 1,
    "simdep.routing": 1,
    "simdep.timeline": 1,
    "simdep.analytic": 2,
    "simdep.engine": 2,
    "simdep.fastpath": 2,
    "simdep.lookahead": 2,
    "simdep.operations": 2,
    "simdep.recurrence": 2,
    "simdep.report": 2,
    "simdep.trace": 2,
    "simdep.work": 2,
    "simdep.aiconfigurator": 3,
    "simdep.bounds": 3,
    "simdep.figures": 3,
    "simdep.kernels": 3,
    "simdep.measurements": 3,
    "simdep.optimum": 3,
    "simdep.datasheet": 4,
    "simdep.kernel_fits": 4,
    "simdep.replay": 4,
    "simdep.reproduce.result": 4,
    "simdep.hardware": 5,
    "simdep.evaluate": 6,
    "simdep.fitting": 6,
    "simdep.links": 6,
    "simdep.ranks": 6,
    "simdep.scenario": 7,
    "simdep.memory": 8,
    "simdep.scenario_costs": 8,
    "simdep.scenario_file": 8,
    "simdep.alternatives": 9,
    "simdep.policies.job": 9,
    "simdep.rank_work": 9,
    "simdep.reproduce.findep_kernels": 9,
    "simdep.sensitivity": 9,
    "simdep.why": 9,
    "simdep.policies.builder": 10,
    "simdep.policies.registry": 10,
    "simdep.rank_times": 10,
    "simdep.policies.adapt": 11,
    "simdep.policies.colocated": 11,
    "simdep.policies.dep": 11,
    "simdep.policies.regular": 11,
    "simdep.rank_report": 11,
    "simdep.policies": 12,
    "simdep.commands.given": 13,
    "simdep.commands.policies": 13,
    "simdep.problem": 13,
    "simdep.reproduce.eps_moe": 13,
    "simdep.reproduce.fastafd": 13,
    "simdep.reproduce.findep": 13,
    "simdep.commands.simulate": 14,
    "simdep.reproduce": 14,
    "simdep.solver": 14,
    "simdep.commands.costs": 15,
    "simdep.commands.solve": 15,
    "simdep.predict": 15,
    "simdep.commands.compare": 16,
    "simdep.commands.explain": 16,
    "simdep.sweep": 16,
    "simdep.commands.sweep": 17,
    "realrun": 18,  # every module of it
    "dashboard": 18,
}
FIGURES_MAY_IMPORT = {"simdep.timeline", "simdep.report", "simdep.schedule"}
PACKAGES = ("simdep", "realrun", "dashboard")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str
    line: int
    in_function: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def imports_of(name: str) -> Iterator[Import]:
    """Every import in a module, wherever it stands; `from simdep import costs` imports simdep.costs."""
    tree = ast.parse(MODULES[name].read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively; write the whole name"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [wanted if wanted in MODULES else str(node.module) for wanted in full]
        else:
            continue
        yield from (Import(name, imported, node.lineno, id(node) in inside) for imported in found)


IMPORTS = [found for name in MODULES for found in imports_of(name)]


def package(name: str) -> str:
    return name.partition(".")[0]


def layer(name: str) -> int:
    """The layer of a module; a KeyError names a module of simdep that the table above does not list."""
    return LAYER[name if package(name) == "simdep" else package(name)]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_a_layer(name: str) -> None:
    assert layer(name) >= 0


def test_a_module_of_simdep_imports_only_from_layers_below_its_own() -> None:
    own = [found for found in IMPORTS if package(found.importer) == "simdep" and package(found.imported) in PACKAGES]
    assert len(own) > 20
    assert not [str(found) for found in own if layer(found.imported) >= layer(found.importer)]


def test_realrun_and_dashboard_do_not_import_each_other() -> None:
    pairs = {(package(found.importer), package(found.imported)) for found in IMPORTS}
    assert not pairs & {("realrun", "dashboard"), ("dashboard", "realrun")}


def test_simdep_imports_neither_torch_nor_streamlit() -> None:
    heavy = [found for found in IMPORTS if package(found.imported) in ("torch", "streamlit")]
    assert not [str(found) for found in heavy if package(found.importer) == "simdep"]


def test_only_figures_imports_plotly_in_simdep() -> None:
    drawing = [found for found in IMPORTS if package(found.imported) == "plotly"]
    assert {found.importer for found in drawing if package(found.importer) == "simdep"} <= {"simdep.figures"}


def test_figures_draw_from_timeline_report_and_schedule_alone() -> None:
    used = {f.imported for f in IMPORTS if f.importer == "simdep.figures" and package(f.imported) in PACKAGES}
    assert used <= FIGURES_MAY_IMPORT


def test_simdep_imports_figures_only_where_a_picture_is_asked_for() -> None:
    figures = [f for f in IMPORTS if f.imported == "simdep.figures" and package(f.importer) == "simdep"]
    assert not [str(found) for found in figures if not found.in_function]


def test_only_a_command_line_imports_modules_of_ours_inside_a_function() -> None:
    """It draws only when asked to, and realrun's starts fast that way; elsewhere it would hide a circle."""
    inside = [found for found in IMPORTS if found.in_function and package(found.imported) in PACKAGES]
    assert not [
        str(found) for found in inside if ".commands." not in found.importer and found.importer != "realrun.__main__"
    ]


@pytest.mark.parametrize("name", ["realrun", "dashboard"])
def test_the_modules_of_a_package_do_not_import_in_a_circle(name: str) -> None:
    left = {
        module: {found.imported for found in IMPORTS if found.importer == module and package(found.imported) == name}
        for module in MODULES
        if package(module) == name
    }
    while free := {module for module, needed in left.items() if not needed & left.keys()}:
        left = {module: needed for module, needed in left.items() if module not in free}
    assert not left


@pytest.mark.parametrize(
    "modules", ["simdep.engine, simdep.policies", "simdep.report, simdep.trace", "simdep.__main__"]
)
def test_simulating_loads_neither_torch_nor_streamlit_nor_plotly(modules: str) -> None:
    code = f"import sys, {modules}; print(sorted({{'torch', 'streamlit', 'plotly'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
