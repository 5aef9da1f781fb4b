"""The commands as another program sees them: JSON on stdout, one sentence and exit code 2 for bad
input."""

import json
from pathlib import Path

import pytest
from cli import one_sentence, run
from schedules import findep

SERVED = "simulate --model deepseek-v2 --hardware a6000 --ag 3 --eg 5 --layers 2"
BARE = "simulate --stage-times attention=1000,shared=300,a2e=50,expert=200,e2a=50"
CASE = {
    "model": "deepseek-v2-lite",
    "layers": 1,
    "seq_len": 8,
    "m_a": 1,
    "ag": 1,
    "eg": 1,
    "policy": "findep",
}


def test_json_holds_what_other_programs_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"simdep {BARE} --layers 2 --r1 2 --r2 2 --json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["makespan_us"] == 5400
    assert result["throughput_tokens_per_s"] is None
    assert set(result["streams"]) == {"AG", "A2E", "EG", "E2A"}
    assert result["streams"]["AG"]["busy_us"] == 5200
    assert result["streams"]["EG"]["busy_fraction"] == pytest.approx(1600 / 5400)
    assert result["exposed_communication_us"] == 50
    assert result["tasks"] == 32
    assert result["critical_path"][0] == "A[0.0]"
    assert result["critical_path"][-1] == "E2A[1.1.1]"


def test_throughput_counts_the_tokens_of_the_whole_attention_group(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(f"simdep {SERVED} --seq-len 512 --m-a 2 --r1 2 --json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["throughput_tokens_per_s"] == pytest.approx(
        2 * 2 * 3 * 512 * 1e6 / result["makespan_us"]
    )


def test_what_was_assumed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"simdep {SERVED} --json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["assumptions"] == [
        "link of a6000 at 3:5 assumed from its figures at 2:6 and 4:4 (published)"
    ]
    assert "assumed" in said.err


def test_flags_win_over_the_scenario_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(
        'model = "deepseek-v2"\nlayers = 2\n[deployment]\nhardware = "a6000"\nag = 4\neg = 4\n'
        '[workload]\nseq_len = 512\nsamples = 4\n[schedule]\npolicy = "findep"\nr1 = 2\nr2 = 2\n'
    )
    assert run("simdep simulate", str(file), "--json") == 0
    from_file = json.loads(capsys.readouterr().out)
    assert from_file["schedule"] == "findep ASAS r1=2 r2=2"
    assert run("simdep simulate --order aass --r1 4 --json", str(file)) == 0
    assert json.loads(capsys.readouterr().out)["schedule"] == "findep AASS r1=4 r2=2"


def test_exports_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / name for name in ("t.json", "t.json.gz", "t.csv", "t.parquet")]
    for file in files:
        assert run(f"simdep {BARE} --trace", str(file), "--html", str(tmp_path / "t.html")) == 0
    assert all(file.stat().st_size > 100 for file in files)
    assert "findep ASAS" in (tmp_path / "t.html").read_text()
    assert "makespan" in capsys.readouterr().out


BAD = [
    # command, what the sentence holds
    ("simdep simulate", "nothing to simulate"),
    ("simdep simulate nowhere.toml", "nowhere.toml"),
    (
        f"simdep {SERVED.replace('deepseek-v2', 'deepseek-v22')}",
        "unknown model 'deepseek-v22'; did you mean",
    ),
    (f"simdep {SERVED.replace('a6000', 'a600')}", "unknown hardware 'a600'; did you mean 'a6000'"),
    (f"simdep {SERVED} --policy fastest", "unknown policy 'fastest'"),
    (f"simdep {SERVED} --order asaa", "'ASAA' is no step"),
    (f"simdep {SERVED} --r1 2 --order", "A0 S0 A1"),
    (f"simdep {SERVED} --r1 2 --order", "A0 S1 A1 S0"),
    (f"simdep {SERVED} --r1 2 --order", "A0 S0 A1 S1 A1"),
    (f"simdep {SERVED} --r1 2 --order", "A0 S0 A1 S1 A2 S2"),
    (f"simdep {SERVED} --r1 0", "r1=0"),
    (f"simdep {SERVED} --r2 0", "r2=0"),
    (f"simdep {SERVED} --seq-len 8 --r2 9", "r2=9 does not fit the 8 tokens"),
    (f"simdep {SERVED} --policy naive --r1 2", "policy naive has one micro-batch"),
    (f"simdep {SERVED} --policy pppipe --r2 2", "policy pppipe does not divide"),
    (f"simdep {SERVED} --m-a -1", "--m-a=-1; expected an integer >= 1"),
    (f"simdep {SERVED} --layers 0", "layers=0"),
    (f"simdep {SERVED} --scale 1.5", "scale=1.5"),
    (f"simdep {SERVED} --phase training", "unknown phase 'training'"),
    (f"simdep {SERVED} --dtype int4", "unknown dtype 'int4'"),
    (f"simdep {SERVED} --eg 161", "eg=161"),
    (f"simdep {SERVED} --r1 two", "r1='two'; expected an integer"),
    (f"simdep {SERVED} --fast", "unrecognized arguments: --fast"),
    ("simdep simulate --model deepseek-v2 --hardware a6000 --ag 3", "eg is missing"),
    ("simdep simulate --model deepseek-v2 --ag 3 --eg 5", "hardware is missing"),
    ("simdep simulate --stage-times attention=1,expert=1,a2e=1", "e2a is missing"),
    ("simdep simulate --stage-times attention=-1,expert=1,a2e=1,e2a=1", "attention='-1'"),
    ("simdep simulate --stage-times attention=nan,expert=1,a2e=1,e2a=1", "attention='nan'"),
    (
        "simdep simulate --stage-times attention=1,experts=1,a2e=1,e2a=1",
        "unknown stage 'experts'; did you mean 'expert'",
    ),
    (f"simdep {BARE} --model deepseek-v2", "leave out --model"),
    (f"simdep {BARE} --trace timeline.xml", ".xml"),
    ("simdep plan", "invalid choice: 'plan'"),
    ("realrun run --model nothing", "unknown model 'nothing'"),
    ("realrun run --rounds 0", "--rounds=0"),
    ("realrun run --seq-len 8 --r2 9", "r2=9 does not fit"),
    ("realrun run --backend mpi", "invalid choice: 'mpi'"),
    ("realrun validate --schedules nowhere.json", "nowhere.json"),
    (
        "realrun validate --quick --schedules some.json",
        "argument --schedules: not allowed with argument --quick",
    ),
    ("realrun validate --profile nowhere.json", "nowhere.json"),
    ("realrun validate --quick --tolerance nan", "--tolerance=nan"),
    ("realrun validate --quick --in-situ -1", "--in-situ=-1"),
    (f"simdep {BARE} --noise -0.1", "--noise=-0.1"),
]


@pytest.mark.parametrize(("command", "sentence"), BAD)
def test_bad_input_gives_one_sentence_and_exit_code_2(
    command: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (sentence,) if command.endswith("--order") else ()
    assert run(command, *more) == 2
    one_sentence(capsys, sentence)


FILES = [
    ("s.toml", "deployment = 3", f"simdep {SERVED} FILE", "deployment=3; expected a table"),
    (
        "s.toml",
        "[workload]\ndtype = ['bf16']",
        f"simdep {SERVED} FILE",
        "unknown dtype ['bf16']",
    ),
    (
        "x.json",
        '{"format": 1, "streams": {"AG": 5}}',
        f"simdep {BARE} --schedule FILE",
        "stream AG: 5 is not a list",
    ),
    (
        "x.json",
        '{"format": 1, "label": "\\u001b", "streams": {"AG": [{"task": "A[0.0]", "tokens": 1}]}}',
        f"simdep {BARE} --schedule FILE",
        "label='\\x1b'; expected a text without control characters",
    ),
    (
        "s.toml",
        'model = "deepseek-v2"\n[deployment]\nhardware = {ag = "h20", eg = "l40s"}\nag = 1\neg = 1',
        "simdep simulate FILE",
        "(ag_hardware, eg_hardware) is not supported yet",
    ),
    (
        "s.toml",
        'model = "deepseek-v2"\n[deployment]\nag_hardware = "h20"\neg_hardware = "l40s"',
        "simdep simulate FILE",
        "(ag_hardware, eg_hardware) is not supported yet",
    ),
    (
        "s.toml",
        'model = "deepseek-v2"\n[deployment]\nhardware = "h20"\ntransport = "x"\nag = 1\neg = 1',
        "simdep simulate FILE",
        "transport='x'; hardware h20 has costs of these transports: none",
    ),
    # file name, content, command, what the sentence holds
    ("s.toml", "model = ", "simdep simulate FILE", "s.toml: expected a value"),
    (
        "s.toml",
        'model = "deepseek-v2"\nlayer = 3',
        "simdep simulate FILE",
        "unknown key of scenario 'layer'",
    ),
    (
        "s.toml",
        "model = 3\n[deployment]\nag = 1\neg = 1",
        "simdep simulate FILE",
        "model=3; expected a text",
    ),
    (
        "s.toml",
        'deployment = 3\nmodel = "x"',
        "simdep simulate FILE",
        "deployment=3; expected a table",
    ),
    (
        "s.toml",
        'model = "deepseek-v2"\n[deployment]\nhardware = "a6000"\nag = 3\neg = '
        "5\n[workload]\nsamples = 16\n"
        "[schedule]\nr1 = 3\n",
        "simdep simulate FILE",
        "r1=3 does not divide the 16 samples of an AG GPU; use 1, 2, 4, 8 or 16",
    ),
    (
        "s.toml",
        'model = "deepseek-v2"\n[deployment]\nhardware = "a6000"\nag = 3\neg = 5\nlink = '
        "{gbytes_per_s = 0}\n",
        "simdep simulate FILE",
        "link.gbytes_per_s=0",
    ),
    (
        "config.json",
        '{"hidden_size": 64}',
        f"simdep {SERVED} --model FILE",
        "num_hidden_layers is missing",
    ),
    (
        "p.json",
        '{"format": 1, "name": "x", "costs": []}',
        f"simdep {SERVED} --hardware FILE",
        "costs and kernels are missing",
    ),
    (
        "p.json",
        '{"format": 1, "name": "x", "costs": [{"op": "gemm", "alpha_us": NaN, "beta_us": 1, '
        '"label": "assumed", "source": "me"}]}',
        f"simdep {SERVED} --hardware FILE",
        "costs[0].alpha_us=nan",
    ),
    (
        "p.json",
        '{"format": 1, "name": "x", "costs": [{"op": "gemm", "alpha_us": -1, "beta_us": 1, '
        '"label": "assumed", "source": "me"}]}',
        f"simdep {SERVED} --hardware FILE",
        "costs[0].alpha_us=-1",
    ),
    ("x.json", "{", f"simdep {BARE} --schedule FILE", "x.json: line 1, column 2: expected JSON"),
    (
        "x.json",
        json.dumps({"format": 1, "streams": {"AG": [{"task": "A[0.0]", "after": ["E2A[7.0.0]"]}]}}),
        f"simdep {BARE} --schedule FILE",
        "A[0.0] waits for E2A[7.0.0], which is not in the schedule",
    ),
    (
        "x.json",
        json.dumps(
            {
                "format": 1,
                "streams": {"AG": [{"task": "A[0.0]", "after": ["A[0.1]"]}, {"task": "A[0.1]"}]},
            }
        ),
        f"simdep {BARE} --schedule FILE",
        "the schedule can never finish: A[0.0] waits for A[0.1] waits for A[0.0]",
    ),
    ("c.json", "[]", "realrun validate --schedules FILE", "a JSON list of at least one schedule"),
    (
        "c.json",
        json.dumps([CASE, {**CASE, "r3": 1}]),
        "realrun validate --schedules FILE",
        "schedule 1: unknown key",
    ),
    (
        "c.json",
        json.dumps([{"model": "x"}]),
        "realrun validate --schedules FILE",
        "schedule 0: ag is missing",
    ),
    ("c.json", json.dumps([{**CASE, "m_a": 1.5}]), "realrun validate --schedules FILE", "m_a=1.5"),
    ("c.json", json.dumps([{**CASE, "ag": True}]), "realrun validate --schedules FILE", "ag=True"),
    ("c.json", json.dumps([{**CASE, "scale": 3}]), "realrun validate --schedules FILE", "scale=3"),
    (
        "c.json",
        json.dumps([{**CASE, "model": "gpt-oss-120b"}]),
        "realrun validate --schedules FILE",
        "a sliding window",
    ),
    (
        "c.json",
        json.dumps([{**CASE, "model": "step-3"}]),
        "realrun validate --schedules FILE",
        "has low-rank queries",
    ),
    (
        "c.json",
        json.dumps([{**CASE, "model": "llama-4-maverick"}]),
        "realrun validate --schedules FILE",
        "alternating dense layers",
    ),
]


@pytest.mark.parametrize(("name", "content", "command", "sentence"), FILES)
def test_a_bad_file_gives_one_sentence_and_exit_code_2(
    name: str,
    content: str,
    command: str,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / name
    file.write_text(content)
    assert run(command.replace("FILE", str(file))) == 2
    one_sentence(capsys, sentence)


def test_layers_that_memory_cannot_hold_are_refused_with_the_bytes_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([CASE, {**CASE, "model": "deepseek-v2", "layers": 59}]))
    assert run("realrun validate --schedules", str(file)) == 3
    said = capsys.readouterr().err
    assert "59 layers of deepseek-v2 at scale 1 on 1+1 ranks need 9" in said
    assert "bytes of memory" in said


def test_a_schedule_from_a_file_runs_instead_of_a_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "schedule.json"
    findep(3, 2, 2, "aass").save(file)
    assert run(f"simdep {BARE} --json --schedule", str(file)) == 0
    assert json.loads(capsys.readouterr().out)["schedule"] == "findep AASS r1=2 r2=2"


def test_noise_varies_the_prediction_and_its_seed_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spans = []
    for more in ("", "--noise 0.1 --seed 1", "--noise 0.1 --seed 1", "--noise 0.1 --seed 2"):
        assert run(f"simdep {BARE} --json {more}") == 0
        spans.append(json.loads(capsys.readouterr().out)["makespan_us"])
    assert spans[1] == spans[2]
    assert len(set(spans)) == 3


def test_host_terms_of_a_profile_are_predicted_unless_the_ideal_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One layer of naive: a gap of 5 us before S and one before E; the one before A is over when
    time begins."""
    file = tmp_path / "p.json"
    row = {"label": "assumed", "source": "test", "beta_us": 1e-6}
    costs = [{"op": op, "alpha_us": 10, **row} for op in ("gemm", "attention", "link")]
    costs.append({"op": "host.gap", "alpha_us": 5, **row, "beta_us": 0})
    file.write_text(json.dumps({"format": 1, "name": "x", "costs": costs}))
    spans = []
    for more in ("", "--ideal"):
        command = f"simdep {SERVED} --layers 1 --policy naive --json {more} --hardware"
        assert run(command, str(file)) == 0
        spans.append(json.loads(capsys.readouterr().out)["makespan_us"])
    assert spans[0] - spans[1] == pytest.approx(10)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--html nowhere/x.html", "--html nowhere/x.html: there is no folder nowhere"),
        ("--html .", "--html .: it is a folder; name a file"),
        ("--html scenario.toml", "--html scenario.toml: expected the name of a .html file"),
        ("--trace nowhere/x.json", "--trace nowhere/x.json: there is no folder nowhere"),
        (
            "--layers 100000",
            "layers=100000, r1=1, r2=1: a schedule of 500,000 tasks; expected at most 200,000",
        ),
        (
            "--r1 99999999999999999999",
            "r1=99999999999999999999; expected an integer <= 1,000,000,000",
        ),
        ("--link-alpha-us 5", "link.alpha_us=5 needs a speed: give link.gbytes_per_s too"),
        ("--schedule mine.json --r2 2", "--schedule holds order and granularity; leave out --r2"),
    ],
)
def test_what_can_not_be_done_is_said_before_anything_is_computed(
    flags: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    served = "--model deepseek-v2-lite --hardware h20 --ag 1 --eg 1"
    assert run(f"simdep simulate {served} {flags}") == 2
    one_sentence(capsys, said)


def test_a_policy_comes_with_what_its_paper_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the scenario says nothing of it; compare, which adapts a scenario, comes to the
    same."""
    served = (
        "--model deepseek-v2-lite --hardware h20 --layers 3 --seq-len 512 --samples 2 --r1 2 "
        "--gpus 5"
    )
    assert run(f"simdep simulate {served} --policy two-batch-prefill --json") == 0
    own = capsys.readouterr()
    assert "as its paper has it: comm_sms=24" in own.err
    assert run(f"simdep compare two-batch-prefill {served} --json") == 0
    row = json.loads(capsys.readouterr().out)["policies"][0]
    assert json.loads(own.out)["makespan_us"] == row["makespan_us"]


def test_half_duplex_stays_where_hosts_are_ideal(capsys: pytest.CaptureFixture[str]) -> None:
    spans = {}
    for duplex in ("half", "full"):
        served = (
            "--model gpt-oss-120b --hardware h200 --ag 1 --eg 3 --layers 2 --samples 2 "
            "--link-gbytes-per-s 5"
        )
        assert run(f"simdep simulate {served} --r1 2 --r2 4 --ideal --duplex {duplex} --json") == 0
        spans[duplex] = json.loads(capsys.readouterr().out)["makespan_us"]
    assert spans["half"] > spans["full"]
