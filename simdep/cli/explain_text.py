"""What `simdep explain` prints: the parts of its text, and the rows of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simdep.cli.output import table
from simdep.schedule import track
from simdep.units import human_us

IDLE = "Idle time, percent of the makespan by cause (a kind: waiting for a task of that kind)"
CHANGES = (
    "What one percent of each cost changes of the makespan, "
    "at the rate of the smallest change and in full"
)
_SIDES = {"against": "one_us", "here": "other_us", "change": "change_us"}
_SHOWN_FRACTION = 1e-6  # of the makespan that a cause of idle time takes to be listed
Result = Mapping[str, Any]
TextRow = dict[str, Any]


def explanation_parts(result: Result) -> list[str]:
    """The text of an explanation, part by part."""
    return [
        heading(result),
        f"Critical path\n{table(path_rows(result))}\n{conclusion(result)}",
        f"{IDLE}\n{table(idle_rows(result))}",
        f"{CHANGES}\n{table(sensitivity_rows(result))}",
        "Findings\n" + "\n".join(map(_finding, result["diagnoses"])),
        _difference(result["difference"]),
    ]


def heading(result: Result) -> str:
    """What the schedule takes, and how far from the optimum it may be."""
    rate, bound = result["throughput_tokens_per_s"], human_us(result["lower_bound_us"])
    first = f"{result['schedule']}: makespan {human_us(result['makespan_us'])} (simulated)"
    if rate:
        first += f", {rate:,.0f} tokens/s"
    gap = f"within {result['gap_pct']:.2g} % of the best"
    lines = [first, f"no order of its streams is faster than {bound}: {gap}"]
    if result["optimum"]:
        lines.append(_proof(result["optimum"]))
    return "\n".join(lines)


def conclusion(result: Result) -> str:
    """One sentence: what decides, and which change by one percent brings most."""
    if not result["critical_path"]:
        return ""
    top, makespan = result["critical_path"][0], result["makespan_us"]
    savings = []
    for row in result["sensitivities"]:
        savings.append((makespan - row["down_us"], f"one percent less of {row['name']}"))
        savings.append((makespan - row["up_us"], f"one percent more of {row['name']}"))
    saved, change = max(savings)
    decides = f"{100 * top['fraction']:.0f} % of the critical path is {top['kind']}"
    if saved > 0:
        return f"{decides}; {change} would save most, {human_us(saved)}"
    none = "no single cost by itself would save anything: several chains are equally long"
    return f"{decides}; {none}"


def path_rows(result: Result) -> list[TextRow]:
    """A row for each kind of task on the critical path."""
    rows = []
    for entry in result["critical_path"]:
        row = {name: entry[name] for name in ("kind", "stream", "tasks")}
        percent = float(100 * entry["fraction"])
        rows.append(row | {"time": human_us(entry["us"]), "percent": percent})
    return rows


def idle_rows(result: Result) -> list[TextRow]:
    """A row for each stream: the mean over its ranks, and the rank that is idle least and most
    where there are several."""
    makespan = result["makespan_us"] or 1
    resources: dict[str, list[Mapping[str, float]]] = {}
    causes: dict[str, None] = {}
    for stream, idle_us in result["idle_us"].items():
        resources.setdefault(track(stream)[0], []).append(idle_us)
        for cause, us in idle_us.items():
            if us > _SHOWN_FRACTION * makespan:
                causes[cause] = None
    rows = []
    for resource, ranks in resources.items():
        bubbles = [100 * sum(idle_us.values()) / makespan for idle_us in ranks]
        row: TextRow = {"stream": resource, "idle": float(sum(bubbles) / len(ranks))}
        if len(ranks) > 1:
            row |= {"least": float(min(bubbles)), "most": float(max(bubbles))}
        for cause in causes:
            total = sum(idle_us.get(cause, 0) for idle_us in ranks)
            row[cause] = float(100 * total / len(ranks) / makespan)
        rows.append(row)
    return rows


def sensitivity_rows(result: Result) -> list[TextRow]:
    """A row for each cost: what one percent of it changes."""
    makespan, rows = result["makespan_us"], []
    for entry in result["sensitivities"]:
        rows.append(
            {
                "cost": entry["name"],
                "1 % more": _signed(entry["up_us_per_pct"]),
                "1 % less": _signed(entry["down_us_per_pct"]),
                "at 1 % more": _signed(entry["up_us"] - makespan),
                "at 1 % less": _signed(entry["down_us"] - makespan),
            }
        )
    return rows


def _signed(us: float | None) -> str:
    if us is None:
        return ""
    return f"+{human_us(us)}" if us > 0 else human_us(us)


def _finding(diagnosis: Result) -> str:
    return f"- {diagnosis['name']}: {'yes' if diagnosis['found'] else 'no'}; {diagnosis['text']}"


def _proof(optimum: Result) -> str:
    best, limit = human_us(optimum["makespan_us"]), human_us(optimum["lower_bound_us"])
    took = f"(CP-SAT, {optimum['solve_s']:.2g} s)"
    if optimum["verdict"] == "optimal":
        return f"proven optimal over all orders of every stream {took}"
    if optimum["found_verdict"] == "optimal":
        rule = f"the optimum over all orders of every stream is {best} {took}"
        return f"{rule}: {optimum['verdict']} of it"
    found = f"best order found {best}, none is faster than {limit} {took}"
    return f"{found}: {optimum['verdict']} of the optimum"


def _difference(difference: Result | None) -> str:
    if difference is None:
        return ""
    sentences = "\n".join(f"- {sentence}" for sentence in difference["words"])
    path = _sides(difference["critical_path"], "kind", "stream")
    idle = _sides(difference["idle"], "stream", "cause")
    parts = [f"Against {difference['against']}\n{sentences}"]
    parts += [f"Critical paths\n{table(path)}", f"Idle time\n{table(idle)}"]
    return "\n\n".join(parts)


def _sides(entries: Sequence[Result], *names: str) -> list[TextRow]:
    """Rows with the times of both sides, and what changes between them."""
    rows = []
    for entry in entries:
        row = {name: entry[name] for name in names}
        for side, key in _SIDES.items():
            row[side] = human_us(entry[key])
        rows.append(row)
    return rows
