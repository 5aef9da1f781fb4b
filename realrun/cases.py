"""A case: one schedule of one scenario, to be predicted and really run.

An entry of a schedules file, a JSON list, holds the fields of a scenario, in tables as in a
scenario file or by name, and two of its own:

    link_alpha_us        start-up of a message, default 50
    link_mbytes_per_s    speed of the link, default 1000
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from realrun.backends.shared_memory import LinkSpeed
from realrun.place import KEPT_BY_RUNNER, MAX_MESSAGES
from realrun.plan import PlannedCase
from realrun.runtime.executable import check_executable
from realrun.support import check_supported
from simdep import checks, files
from simdep.checks import InputError
from simdep.file_kinds import CASES
from simdep.hardware.profile import Cost, HardwareProfile
from simdep.policies import schedule_for, set_up
from simdep.scenario.fields import FIELDS, TABLES, override
from simdep.scenario.spec import Scenario
from simdep.schedule import Kind, Schedule

UNMEASURED = HardwareProfile("unmeasured", "", ())
CPU_DTYPE = "fp32"
SPEED_KEYS = ("link_alpha_us", "link_mbytes_per_s")
_GRANULARITY = ("micro_batches", "chunks", "merge_last")


@dataclass(frozen=True)
class Case:
    """A scenario and how it is really run.

    `model` and `scale` are as the user gave them: ranks draw the weights by them. `custom` runs
    instead of the schedule of the scenario's policy; `synthetic` are microseconds by kind, where
    timed waits stand in for computation.
    """

    scenario: Scenario
    model: str
    scale: float = 1.0
    link: str = "shm"  # what carries messages; see `realrun.place.LINKS`
    speed: LinkSpeed = field(default_factory=LinkSpeed)
    custom: Schedule | None = None
    synthetic: Mapping[str, float] | None = None

    @classmethod
    def from_dict(cls, entry: Any) -> Case:
        """A checked case from an entry of a schedules file; raises InputError naming the field at
        fault."""
        checks.mapping(entry, (*SPEED_KEYS, *TABLES, *FIELDS), "schedule")
        by_name = {key: value for key, value in entry.items() if key not in TABLES}
        tables = {key: value for key, value in entry.items() if key in TABLES}
        speed = {key: by_name.pop(key) for key in SPEED_KEYS if key in by_name}
        for key in by_name:
            table = tables.get(FIELDS[key].table)
            if isinstance(table, Mapping) and key in table:
                raise InputError(f"{key} is given twice, in its table and by name; give it once")
        return cls.from_tables(override(tables, by_name), speed)

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], speed: Mapping[str, Any]) -> Case:
        """A checked case from the tables of a scenario file; `speed` holds the link's own keys,
        which go before the link of the tables. Raises InputError naming the field at fault."""
        scenario = Scenario.from_dict(tables, UNMEASURED)
        link_speed = _speed(tables, speed)
        # The link is the runner's to keep; `scenario_on` puts it back for a prediction
        deployment = replace(scenario.deployment, link=None)
        workload = scenario.workload
        if "dtype" not in scenario.given:
            workload = replace(workload, dtype=CPU_DTYPE)
        scenario = replace(scenario, deployment=deployment, workload=workload)
        scenario = set_up(scenario).scenario
        case = cls(scenario, tables["model"], tables.get("scale", 1.0), speed=link_speed)
        return case.checked()

    def checked(self) -> Case:
        """This case; raises InputError naming what can't be run."""
        check_supported(self.scenario)
        check_executable(self.schedule)
        self._check_tokens()
        messages = len(self.schedule.streams["A2E"])
        if messages > MAX_MESSAGES:
            raise InputError(
                f"the schedule has {messages:,} messages in each direction; a real run has at most "
                f"{MAX_MESSAGES:,}"
            )
        return self

    def _check_tokens(self) -> None:
        """Whether the schedule has the tasks of the model, on whole samples."""
        has_shared = any(task.kind is Kind.SHARED for task in self.schedule)
        if has_shared != self.scenario.model.has_shared:
            needs = "has no" if has_shared else "has"
            raise InputError(
                f"the schedule has {'' if has_shared else 'no '}tasks of shared experts; "
                f"model {self.model} {needs} shared experts"
            )
        for task in self.schedule.streams["AG"]:
            if task.tokens % self.seq_len:
                raise InputError(
                    f"{task}: tokens={task.tokens}; expected whole samples of "
                    f"seq_len={self.seq_len} tokens"
                )

    def with_schedule(self, schedule: Schedule) -> Case:
        """The same scenario with a schedule of one's own; raises InputError for one that can't be
        run."""
        # Ranks hold as many layers as the schedule walks
        scenario = replace(self.scenario, layers=schedule.layers)
        return replace(self, scenario=scenario, custom=schedule).checked()

    def on_backend(self, dtype: str, link: str) -> Case:
        """The case as ranks compute it and are linked; raises InputError for a data type that was
        stated and is another."""
        workload = self.scenario.workload
        if workload.dtype != dtype and "dtype" in self.scenario.given:
            raise InputError(
                f"dtype={workload.dtype!r}: the ranks of this machine compute in {dtype}"
            )
        scenario = replace(self.scenario, workload=replace(workload, dtype=dtype))
        return replace(self, scenario=scenario, link=link)

    def to_dict(self) -> dict[str, Any]:
        """The case by fields, ready for JSON."""
        scenario = self.scenario
        fields: dict[str, Any] = {
            "model": self.model,
            "layers": scenario.layers,
            "seq_len": self.seq_len,
            "m_a": scenario.m_a,
            "ag": self.ag,
            "eg": self.eg,
            "policy": scenario.policy,
            "order": scenario.order,
            "r1": scenario.r1,
            "r2": scenario.r2,
            "scale": self.scale,
            "link_alpha_us": self.speed.alpha_us,
            "link_mbytes_per_s": self.speed.mbytes_per_s,
        }
        for name in _GRANULARITY:
            if getattr(scenario, name):
                fields[name] = getattr(scenario, name)
        return fields

    @property
    def ag(self) -> int:
        return self.scenario.deployment.ag

    @property
    def eg(self) -> int:
        return self.scenario.deployment.eg

    @property
    def seq_len(self) -> int:
        return self.scenario.workload.seq_len

    @cached_property
    def schedule(self) -> Schedule:
        return self.custom or schedule_for(self.scenario)

    @property
    def samples(self) -> list[int]:
        """Samples of each micro-batch of an AG rank."""
        tokens: dict[int, int] = {}
        for task in self.schedule.streams["AG"]:
            if task.kind is Kind.ATTENTION:
                tokens[task.mb] = task.tokens
        return [count // self.seq_len for count in tokens.values()]

    def scenario_on(self, hardware: HardwareProfile) -> Scenario:
        """The scenario that predicts this case on a machine."""
        deployment = replace(
            self.scenario.deployment,
            hardware=hardware,
            link=self.kept_link,
            transport=self.transport,
        )
        return replace(self.scenario, deployment=deployment)

    @property
    def kept_link(self) -> Cost | None:
        """The link whose speed the runner keeps, if it is one."""
        if self.link not in KEPT_BY_RUNNER:
            return None
        alpha_us, rate = self.speed.alpha_us, self.speed.mbytes_per_s
        source = f"--link {self.link}: {alpha_us:g} us + {rate:g} MB/s, kept by the runner"
        return Cost("link", alpha_us, 1 / rate, "assumed", source)

    @property
    def transport(self) -> str:
        """What carries messages, as far as costs depend on it: those of the link and of the
        host."""
        if self.link in ("shaped", "tbf"):
            return f"{self.link} {self.speed.mbytes_per_s:g} MB/s"
        return self.link

    @property
    def shape(self) -> tuple[Any, ...]:
        """Cases of one shape share layers and stage costs."""
        return self.ag, self.eg, self.model, self.scale, self.scenario.layers, self.seq_len

    @property
    def workload(self) -> tuple[Any, ...]:
        """Cases of one workload do the same work: the fastest of them is the best schedule."""
        return *self.link_group, sum(self.samples)

    @property
    def link_group(self) -> tuple[Any, ...]:
        """Cases of one shape over one link."""
        return *self.shape, self.speed.alpha_us, self.speed.mbytes_per_s

    def planned(self) -> PlannedCase:
        """What a rank needs to know of the case."""
        return PlannedCase(
            model=self.model,
            scale=self.scale,
            seq_len=self.seq_len,
            schedule=self.schedule,
            link=self.link,
            speed=self.speed,
            synthetic=dict(self.synthetic or {}),
        )


def _speed(tables: Mapping[str, Any], own: Mapping[str, Any]) -> LinkSpeed:
    """The speed of the link: its own keys, else the link of the scenario, else the default."""
    speed: dict[str, float] = {}
    link = tables.get("deployment", {}).get("link")
    if isinstance(link, Mapping):
        speed = {"alpha_us": link.get("alpha_us", 0), "mbytes_per_s": 1e3 * link["gbytes_per_s"]}
    for key, value in own.items():
        if value is not None:
            above = 0 if key == "link_mbytes_per_s" else None
            speed[key.removeprefix("link_")] = checks.number(value, key, above=above)
    return LinkSpeed(**speed)


def load_cases(path: Path) -> list[Case]:
    """The cases of a schedules file, a JSON list of entries; raises InputError naming the file and
    the entry."""
    entries = files.read_json(path, CASES)
    with files.context(path, CASES):
        if not isinstance(entries, list) or not entries:
            raise InputError("expected a JSON list of at least one schedule")
        return [_entry(index, entry) for index, entry in enumerate(entries)]


def _entry(index: int, entry: Any) -> Case:
    try:
        return Case.from_dict(entry)
    except ValueError as error:
        raise InputError(f"schedule {index}: {error}") from None
