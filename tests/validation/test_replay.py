"""Replay: a run that the simulator made is replayed exactly, and a real one within 1 %."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from places import SHARED
from samples import events

from simdep.validation.replay import EVENT_COLUMNS, fitted_gap_us, read_events, recorded_run, replay

EXAMPLE = SHARED / "data" / "afd_v100_example.csv"


@pytest.mark.parametrize("gap", [0.0, 40.0, 400.0])
@pytest.mark.parametrize(("attention", "expert"), [(300, 500), (500, 300), (400, 400)])
def test_a_simulated_run_is_replayed_with_its_own_gap(
    attention: float, expert: float, gap: float
) -> None:
    found = replay(events(attention=attention, expert=expert, gap=gap))
    assert found.host_gap_us == pytest.approx(gap, abs=5)
    assert found.predicted_us == pytest.approx(found.measured_us, rel=0.01)


def test_the_numbers_of_a_replay_are_those_of_the_interface() -> None:
    told = replay(events()).to_dict()
    assert {"predicted_us", "measured_us", "host_gap_us", "error_pct", "tasks"} <= set(told)
    assert told["tasks"] == 8 * 2 * 4
    assert told["error_without_gap_pct"] < told["error_pct"] < 1


def test_a_later_step_follows_the_last_layer_of_the_one_before() -> None:
    first = events(layers=2)
    second = first.assign(start_ms=first.start_ms + 100, end_ms=first.end_ms + 100)
    run = recorded_run(pd.concat([first, second], ignore_index=True), "events")
    assert len(run.schedule) == 2 * len(first)
    assert run.schedule["A[2.0]"].after == ("E2A[1.0.0]",)


def test_a_run_faster_than_its_tasks_allow_has_no_gap() -> None:
    run = recorded_run(events(gap=0), "events")
    assert fitted_gap_us(run) == 0


def test_several_runs_in_a_file_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    pd.concat([events(), events(mode="decode")]).to_csv(file, index=False)
    assert [replay(run).to_dict()["mode"] for run in read_events(file)] == ["prefill", "decode"]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("end_ms", -1.0, "an event ends before it starts"),
        ("layer", -1, "layer and mb count from 0"),
        ("mb", 0.5, "layer and mb count from 0"),
        ("batch", None, "mode, batch or seq is empty"),
        ("node", "gpu", "node is one of attention, ffn"),
        ("op", "sleep", "op is one of attn_compute, ffn_compute, send_transfer, recv_wait"),
        ("start_ms", "soon", "a number is missing"),
    ],
)
def test_a_malformed_event_is_refused_by_its_row_and_rule(
    tmp_path: Path, column: str, value: object, message: str
) -> None:
    table = events(layers=1).astype({column: object})
    table.loc[1, column] = value
    table.to_csv(tmp_path / "events.csv", index=False)
    with pytest.raises(ValueError, match=rf"events\.csv: line 3: {message}: prefill,"):
        read_events(tmp_path / "events.csv")


def test_a_missing_column_or_an_empty_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    events(layers=1).drop(columns="mb").to_csv(file, index=False)
    with pytest.raises(ValueError, match="column mb is missing"):
        read_events(file)
    file.write_text(",".join(EVENT_COLUMNS) + "\n")
    with pytest.raises(ValueError, match="no events"):
        read_events(file)


def test_an_ffn_task_without_its_attention_is_refused() -> None:
    table = events(layers=1)
    with pytest.raises(
        ValueError, match="every FFN computation follows the attention of its layer"
    ):
        recorded_run(table[table.op != "attn_compute"], "events")


def test_a_run_of_one_node_or_of_no_time_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    table = events(layers=1)
    table[table.node == "attention"].to_csv(file, index=False)
    with pytest.raises(
        ValueError, match="no event is ffn_compute; a run has computations of both nodes"
    ):
        read_events(file)
    with pytest.raises(ValueError, match="all computations take no time"):
        recorded_run(table.assign(start_ms=5.0, end_ms=5.0), "events")


def test_rows_and_columns_may_come_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    table = events()
    table[[*table.columns[::-1]]].sample(frac=1, random_state=0).assign(note="x").to_csv(
        file, index=False
    )
    (run,) = read_events(file)
    assert replay(run).to_dict() == replay(table).to_dict()


@pytest.mark.skipif(
    not EXAMPLE.exists(),
    reason="needs ../shared/data/afd_v100_example.csv, which is not ours to ship",
)
def test_the_makespan_of_a_real_run_on_four_v100_is_predicted_within_one_percent() -> None:
    (run,) = read_events(EXAMPLE)
    found = replay(run).to_dict()
    assert abs(found["error_pct"]) <= 1
    assert found["error_without_gap_pct"] < -1
