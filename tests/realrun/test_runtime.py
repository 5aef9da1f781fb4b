"""Real runs over gloo: what they compute, in which order, and what happens when a rank dies."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cases import small_case  # noqa: E402
from schedules import dep_streams  # noqa: E402

from realrun.backends import netns  # noqa: E402
from realrun.backends.shared_memory import LinkSpeed  # noqa: E402
from realrun.calibration.points import PointKey  # noqa: E402
from realrun.cases import Case  # noqa: E402
from realrun.plan import Plan, PlannedCase  # noqa: E402
from realrun.runtime.launch import spawn  # noqa: E402
from realrun.runtime.layers import AttentionLayer, Expert, Numerics, norm, rotate  # noqa: E402
from realrun.runtime.stamps import Stamps, timeline_of  # noqa: E402
from realrun.validation.campaign import Campaign, CampaignMeasurements, measure, read_results  # noqa: E402
from simdep.policies import Job, build, find  # noqa: E402
from simdep.scenario.models import MLA, ModelSpec, load_model  # noqa: E402
from simdep.schedule import Kind, Schedule  # noqa: E402

LAYERS, SAMPLES, SEQ_LEN, SEED = 2, 4, 5, 7
NUMERICS = Numerics(torch.device("cpu"), torch.float32, SEED)
DEGREES = [("naive", "asas", 1, 1), *(("pppipe", "asas", r1, 1) for r1 in (1, 2, 4))]
DEGREES += [
    ("findep", order, r1, r2) for order in ("asas", "aass") for r1 in (1, 2, 4) for r2 in (1, 2, 3)
]
DEGREES += [("findep", "A0 A1 S0 A2 S2 A3 S3 S1", 4, 2)]

A, S = Kind.ATTENTION, Kind.SHARED
SLIP = ((A, 0, 1), (A, 0, 0), (S, 0, 1), (A, 1, 1), (S, 0, 0), (A, 1, 0), (S, 1, 0), (S, 1, 1))

MLA_CONFIG = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "n_routed_experts": 11,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
}
GQA_CONFIG = {
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_experts": 10,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}


def reference(model: ModelSpec, rank: int) -> np.ndarray:
    """All layers in one process, sample by sample, expert by expert; attention written out, nothing
    cut or sorted."""
    h = NUMERICS.inputs(rank, SAMPLES, SEQ_LEN, model.hidden)
    for layer in range(LAYERS):
        part = AttentionLayer(model, layer, NUMERICS)
        experts = [
            Expert(model.hidden, model.expert_hidden, NUMERICS, f"{layer}/expert/{e}")
            for e in range(model.experts)
        ]
        h = torch.stack([_layer(part, experts, sample) for sample in h])
    return np.asarray(h)


def _layer(part: AttentionLayer, experts: list[Expert], h: torch.Tensor) -> torch.Tensor:
    model, form = part.model, part.model.attention
    x = norm(h)
    heads = []
    for head in range(form.heads):
        if isinstance(form, MLA):
            latent = x if part.q_down is None else norm(x @ part.q_down.T)
            q = latent @ part.q[head * form.k_dim : (head + 1) * form.k_dim].T
            q = torch.cat([q[:, : form.nope_dim], rotate(q[:, form.nope_dim :])], dim=1)
            down = x @ part.kv_down.T
            width = form.nope_dim + form.v_dim
            up = norm(down[:, : form.kv_rank]) @ part.kv_up[head * width : (head + 1) * width].T
            k = torch.cat([up[:, : form.nope_dim], rotate(down[:, form.kv_rank :])], dim=1)
            v = up[:, form.nope_dim :]
        else:
            dim, kv = form.head_dim, head // (form.heads // form.kv_heads)
            q = rotate(x @ part.q[head * dim : (head + 1) * dim].T)
            k = rotate(x @ part.k[kv * dim : (kv + 1) * dim].T)
            v = x @ part.v[kv * dim : (kv + 1) * dim].T
        scores = q @ k.T / form.k_dim**0.5
        future = torch.ones_like(scores).triu(1).bool()
        heads.append(scores.masked_fill(future, float("-inf")).softmax(-1) @ v)
    u = h + torch.cat(heads, dim=1) @ part.out.T
    x = norm(u)
    y = u + part.shared(x) if part.shared is not None else u.clone()
    probabilities = (x @ part.router.T).softmax(-1)
    for token in range(len(x)):
        weights, chosen = probabilities[token].topk(model.top_k)
        weights = weights / weights.sum() if model.norm_topk else weights
        for weight, expert in zip(weights, chosen, strict=True):
            y[token] += weight * experts[int(expert)](x[token : token + 1])[0]
    return y


def uneven(shared: bool) -> list[Schedule]:
    """3 and 1 samples in chunks that differ: in number too, uncut in the last layer, and S(0,0)
    after A(1,1)."""
    cut = ((4, 11), (2, 2, 1))
    made = [
        find("findep").schedule(Job(LAYERS, cut, "aass", shared, merge_last=last))
        for last in (False, True)
    ]
    slip = dep_streams(
        "slip", SLIP, ((5, 5), (3, 7)), layers=LAYERS, shared=shared, wait_for_shared=False
    )
    return [*made, slip]


def plan_for(configs: list[Path], ag: int, eg: int, link: str, folder: Path) -> Plan:
    """Every policy, order and degree on every model, run once after its routing is recorded, with
    the output saved."""
    cases = {}
    for config in configs:
        shared = load_model(str(config)).has_shared
        regular = [
            build(policy, LAYERS, r1, r2, order, tokens=SAMPLES // r1 * SEQ_LEN, shared=shared)
            for policy, order, r1, r2 in DEGREES
        ]
        for schedule in (*regular, *uneven(shared)):
            name = f"{config.stem}-{schedule.label.replace(' ', '_')}"
            speed = LinkSpeed(5.0, 1000.0)
            cases[name] = PlannedCase(str(config), 1.0, SEQ_LEN, schedule, link, speed)
    jobs = []
    for name in cases:
        jobs += [
            {"job": "record", "case": name},
            {"job": "run", "case": name},
            {"job": "output", "case": name, "folder": str(folder)},
        ]
    return Plan(ag, eg, cases, jobs, "gloo", SEED)


@pytest.mark.parametrize("link", ["shm", "lo"])
@pytest.mark.parametrize(("ag", "eg"), [(1, 1), (2, 2), (3, 5)])
def test_every_schedule_computes_what_one_process_computes_in_the_order_of_its_streams(
    ag: int, eg: int, link: str, tmp_path: Path
) -> None:
    configs = [tmp_path / "mla.json", tmp_path / "gqa.json"]
    for config, content in zip(configs, (MLA_CONFIG, GQA_CONFIG), strict=True):
        config.write_text(json.dumps(content))
    plan = plan_for(configs, ag, eg, link, tmp_path)
    (tmp_path / "plan.json").write_text(plan.to_json())
    results = tmp_path / "results.jsonl"
    spawn(["-m", "realrun.worker", str(tmp_path / "plan.json"), str(results)], ag, eg, tmp_path)

    expected = {
        (c.stem, rank): reference(load_model(str(c)), rank) for c in configs for rank in range(ag)
    }
    for name in plan.cases:
        for rank in range(ag):
            output, wanted = (
                np.load(tmp_path / f"{name}-AG{rank}.npy"),
                expected[name.split("-")[0], rank],
            )
            error = np.abs(output - wanted).max() / np.abs(wanted).max()
            assert error < 1e-4, f"{name} on AG{rank}: relative error {error:.1e}"
    for line in results.read_text().splitlines():
        row = json.loads(line)
        job = plan.jobs[row["index"]]
        if job["job"] == "run":
            schedule = plan.cases[job["case"]].schedule
            timeline = timeline_of(schedule, ag, [Stamps.from_dict(rank) for rank in row["ranks"]])
            for (stream, rank), lane in timeline.rows.groupby(["stream", "rank"]):
                assert lane["task"].tolist() == [t.name for t in schedule.streams[stream]], (
                    job["case"],
                    stream,
                    rank,
                )
                assert (lane["start_us"].to_numpy()[1:] >= lane["end_us"].to_numpy()[:-1]).all()


def start_campaign(
    folder: Path, link: str = "shm"
) -> tuple[subprocess.Popen[str], Case, dict[str, int]]:
    """A long campaign in a process of its own, some results in; with its case, and the pid of each
    rank."""
    case = replace(small_case(layers=2, seq_len=32, m_a=2, policy="pppipe", r1=2), link=link)
    script = folder / "go.py"
    script.write_text(
        "from dataclasses import replace\nfrom pathlib import Path\n"
        "from realrun.cases import Case\n"
        "from realrun.validation.campaign import Campaign, measure\n"
        f"case = replace(Case.from_dict({case.to_dict()!r}), link={link!r})\n"
        "campaign = Campaign([case], 100000, calibrate=False, backend='gloo')\n"
        f"measure(campaign, Path({str(folder)!r}))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    results = folder / "ranks-1+1" / "results.jsonl"
    deadline = time.monotonic() + 120
    while not (results.exists() and results.read_text().count("\n") > 3):
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.05)
    children = [
        int(pid)
        for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    ]
    return (
        parent,
        case,
        {Path(f"/proc/{pid}/environ").read_text().split("\0RANK=")[1][0]: pid for pid in children},
    )


def test_a_killed_rank_ends_the_others_and_is_named_and_results_stay(tmp_path: Path) -> None:
    parent, case, ranks = start_campaign(tmp_path)
    os.kill(ranks["1"], signal.SIGKILL)
    _, said = parent.communicate(timeout=30)
    assert parent.returncode != 0
    assert "rank 1 (EG0) was killed by SIGKILL" in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())
    plan = Plan.load(tmp_path / "ranks-1+1" / "plan.json")
    found = CampaignMeasurements()
    read_results(plan, tmp_path / "ranks-1+1" / "results.jsonl", [case], found)
    assert runs_of(found) >= 2


def runs_of(found: CampaignMeasurements) -> int:
    """How many runs of the first case there are, disturbed ones included."""
    return len(found.timelines.get(0, [])) + len(found.disturbed.get(0, []))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_ranks_and_shared_memory_end_with_their_parent(how: signal.Signals, tmp_path: Path) -> None:
    before = set(Path("/dev/shm").iterdir())
    parent, _, ranks = start_campaign(tmp_path)
    parent.send_signal(how)
    parent.communicate(timeout=30)
    wait_for_end(ranks)
    assert set(Path("/dev/shm").iterdir()) <= before


def wait_for_end(ranks: dict[str, int]) -> None:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in ranks.values()):
        assert time.monotonic() < deadline, "a rank outlived its parent"
        time.sleep(0.05)


def namespaces() -> set[str]:
    """The network namespaces that any process or its open files keep alive."""
    found = set()
    for place in ("ns/net", "fd/*"):
        for link in Path("/proc").glob(f"[0-9]*/{place}"):
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
    return {name for name in found if name.startswith("net:")}


def refusal_of_namespaces() -> str:
    try:
        netns.check_available()
        with netns.Namespaces():
            return ""
    except (ValueError, RuntimeError) as error:
        return str(error)


needs_namespaces = pytest.mark.skipif(bool(refusal_of_namespaces()), reason=refusal_of_namespaces())


@needs_namespaces
@pytest.mark.parametrize("how", ["success", "failure", "SIGINT", "SIGKILL"])
def test_namespaces_end_with_the_command_however_it_ends(how: str, tmp_path: Path) -> None:
    before, devices = namespaces(), sorted(Path("/sys/class/net").iterdir())
    if how == "success":
        case = replace(small_case(m_a=2, r2=2, link_mbytes_per_s=50), link="tbf")
        found = measure(Campaign([case], 2, backend="gloo"), tmp_path)
        assert runs_of(found) == 2
    else:
        parent, _, ranks = start_campaign(tmp_path, "tbf")
        assert len(namespaces() - before) == 2
        if how == "failure":
            os.kill(ranks["0"], signal.SIGKILL)
        else:
            parent.send_signal(signal.Signals[how])
        parent.communicate(timeout=30)
        wait_for_end(ranks)
    assert namespaces() <= before
    assert sorted(Path("/sys/class/net").iterdir()) == devices


@needs_namespaces
def test_the_kernel_keeps_the_speed_of_the_link(tmp_path: Path) -> None:
    """Loopback carries over 1000 MB/s; messages of 196,608 bytes over 50 MB/s lose some of it
    between them."""
    case = replace(small_case(seq_len=64, r2=2, link_mbytes_per_s=50), link="tbf")
    found = measure(Campaign([case], 1, runs=False, backend="gloo"), tmp_path)
    for direction in (0.0, 1.0):
        (rate,) = found.points[PointKey("mbytes_per_s.alone", 1, 1, "tbf 50 MB/s")][direction]
        assert 20 < rate < 55


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2]
    except FileNotFoundError:
        return "Z"


def test_a_campaign_goes_on_where_it_stopped_and_refuses_another_in_its_folder(
    tmp_path: Path,
) -> None:
    case = small_case(model="qwen3-30b-a3b", r1=2, r2=2)
    campaign = Campaign([case], 2, calibrate=False, backend="gloo")
    first = measure(campaign, tmp_path)
    results = tmp_path / "ranks-1+1" / "results.jsonl"
    lines = results.read_text().splitlines(keepends=True)
    results.write_text("".join(lines[:2]) + lines[2][:40])  # as a kill leaves it
    again = measure(campaign, tmp_path)
    assert results.read_text().splitlines(keepends=True)[:2] == lines[:2]
    assert runs_of(first) == runs_of(again) == 2
    with pytest.raises(ValueError, match="holds the results of another campaign"):
        measure(Campaign([case], 3, calibrate=False, backend="gloo"), tmp_path)
