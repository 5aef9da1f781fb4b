"""simdep predicts how disaggregated mixture-of-experts inference runs, before it runs.

    import simdep

    scenario = simdep.Scenario.load("scenario.toml")
    prediction = simdep.simulate(scenario)
    prediction.makespan_us, prediction.metrics, prediction.timeline
    best = simdep.solve(scenario)
    simdep.compare(scenario, ["naive", "pppipe:r1=3", best])

A scenario says what runs on which GPUs; its policy makes a schedule, costs give every task a time,
and the simulation a timeline. Each name is loaded at its first use, so that the import is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simdep.version import VERSION

if TYPE_CHECKING:
    from simdep import policies
    from simdep.checks import InfeasibleError, InputError, RunError, SimdepError
    from simdep.costs import HostOverheads, StageTimes
    from simdep.hardware.profile import HardwareProfile, load_hardware
    from simdep.planning.comparison import compare
    from simdep.planning.solver import Solution, solve
    from simdep.policies import Job, Policy, register
    from simdep.prediction import Prediction, simulate
    from simdep.scenario.models import ModelSpec, load_model
    from simdep.scenario.spec import Deployment, Scenario, Workload
    from simdep.schedule import Kind, Schedule, Task
    from simdep.timeline import Timeline

__version__ = VERSION
__all__ = [
    "Deployment",
    "HardwareProfile",
    "HostOverheads",
    "InfeasibleError",
    "InputError",
    "Job",
    "Kind",
    "ModelSpec",
    "Policy",
    "Prediction",
    "RunError",
    "Scenario",
    "Schedule",
    "SimdepError",
    "Solution",
    "StageTimes",
    "Task",
    "Timeline",
    "Workload",
    "__version__",
    "compare",
    "load_hardware",
    "load_model",
    "policies",
    "register",
    "simulate",
    "solve",
]
_MODULES = {
    "simdep.checks": ("InfeasibleError", "InputError", "RunError", "SimdepError"),
    "simdep.costs": ("HostOverheads", "StageTimes"),
    "simdep.hardware.profile": ("HardwareProfile", "load_hardware"),
    "simdep.planning.comparison": ("compare",),
    "simdep.planning.solver": ("Solution", "solve"),
    "simdep.policies": ("Job", "Policy", "register"),
    "simdep.prediction": ("Prediction", "simulate"),
    "simdep.scenario.models": ("ModelSpec", "load_model"),
    "simdep.scenario.spec": ("Deployment", "Scenario", "Workload"),
    "simdep.schedule": ("Kind", "Schedule", "Task"),
    "simdep.timeline": ("Timeline",),
}


def __getattr__(name: str) -> Any:
    if name == "policies":
        return import_module("simdep.policies")
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module 'simdep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
