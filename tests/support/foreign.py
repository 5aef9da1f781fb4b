"""Files of the field, small and made up, by what they are: each reader meets those of others."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENT = {"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": 5.0, "dur": 2.0}
KINETO = json.dumps({"schemaVersion": 1, "deviceProperties": [], "traceEvents": [EVENT]})
MOE = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 100,
}
DENSE = {key: value for key, value in MOE.items() if "expert" not in key and "moe" not in key}
COST = {"alpha_us": 1.0, "beta_us": 1e-6, "label": "measured", "source": "a test"}
OPERATIONS = ("attention", "shared", "expert", "a2e", "e2a")
PROFILE: dict[str, Any] = {
    "format": 2,
    "name": "box",
    "costs": [{"op": op, **COST} for op in OPERATIONS],
}
TASKS = {
    "AG": [{"task": "A[0.0]", "tokens": 2}],
    "A2E": [{"task": "A2E[0.0.0]", "tokens": 2, "after": ["A[0.0]"]}],
    "EG": [{"task": "E[0.0.0]", "tokens": 2, "after": ["A2E[0.0.0]"]}],
    "E2A": [{"task": "E2A[0.0.0]", "tokens": 2, "after": ["E[0.0.0]"]}],
}
SCHEDULE: dict[str, Any] = {"format": 1, "label": "x", "streams": TASKS}
SCENARIO = """model = "deepseek-v2-lite"
layers = 2
deployment = { hardware = "h20", ag = 3, eg = 5 }
workload = { seq_len = 128, samples = 2 }
schedule = { policy = "findep", r1 = 2, r2 = 2 }
"""
STAGES = """attention = { alpha_us = 10, beta_us = 1 }
expert = { alpha_us = 10, beta_us = 1 }
link = { alpha_us = 10, beta_us = 1 }
"""
GEMM = "gpu,dtype,m,n,k,us\n" + "".join(
    f"h100,bf16,{m},{n},512,{m * n / 1e4}\n" for m in (64, 128, 256) for n in (512, 1024)
)
EVENTS = """mode,batch,seq,node,op,layer,mb,start_ms,end_ms
prefill,4,128,attention,attn_compute,0,0,0,1
prefill,4,128,attention,send_transfer,0,0,1,1.5
prefill,4,128,ffn,ffn_compute,0,0,1.5,3
prefill,4,128,ffn,send_transfer,0,0,3,3.5
"""
ROUTING = "expert,rows\n0,3\n1,1\n2,2\n3,2\n"
TIMELINE = (
    "task,kind,layer,mb,chunk,stream,rank,tokens,start_us,end_us\nA[0.0],x,0,0,-1,AG,0,2,0,1\n"
)
PUBLISHED = (
    "model,context,attention_nodes,ffn_nodes,micro_batches,batch_per_attention_gpu,step_ms\n"
    "qwen3-235b-a22b,8192,5,1,2,96,33\n"
)
REQUEST = {"timestamp": 0, "input_length": 4096, "output_length": 60, "hash_ids": [1]}
BENCH = {"backend": "vllm", "num_prompts": 9, "request_throughput": 1.5, "mean_ttft_ms": 310.5}
CASES = [{"model": "deepseek-v2-lite", "layers": 1, "ag": 1, "eg": 1, "seq_len": 8, "m_a": 1}]

KINDS: dict[str, tuple[str | bytes, str]] = {  # name -> content, and a word of its description
    "kineto.json": (KINETO, "Kineto trace"),
    "kineto.json.gz": (gzip.compress(KINETO.encode()), "Kineto trace"),
    "azure.csv": ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-10,512,40\n", "Azure"),
    "burst.csv": ("Timestamp,Model,Request tokens,Response tokens\n5,x,512,40\n", "BurstGPT"),
    "mooncake.jsonl": (2 * (json.dumps(REQUEST) + "\n"), "Mooncake"),
    "bench.json": (json.dumps(BENCH), "vLLM"),
    "sharegpt.json": (json.dumps([{"id": "a", "conversations": []}]), "ShareGPT"),
    "dense.json": (json.dumps(DENSE), "dense model"),
    "config.json": (json.dumps(MOE), "MoE model"),
    "index.json": (json.dumps({"metadata": {}, "weight_map": {}}), "checkpoint"),
    "profile.json": (json.dumps(PROFILE), "hardware profile"),
    "schedule.json": (json.dumps(SCHEDULE), "schedule"),
    "cases.json": (json.dumps(CASES), "schedules for realrun"),
    "scenario.toml": (SCENARIO, "scenario"),
    "stages.toml": (STAGES, "stage costs"),
    "gemm.csv": (GEMM, "measurements"),
    "events.csv": (EVENTS, "events"),
    "routing.csv": (ROUTING, "routing"),
    "timeline.csv": (TIMELINE, "timeline"),
    "nsys.csv": ("Start (ns),Duration (ns),Name\n1,2,gemm\n", "Nsight"),
    "trace.sqlite": (b"SQLite format 3\0" + bytes(90), "SQLite"),
    "table.parquet": (b"PAR1" + bytes(90) + b"PAR1", "Parquet"),
    "model.safetensors": (b"\x40\0\0\0\0\0\0\0" + b'{"w":{"dtype":"BF16"}}', "safetensors"),
    "model.pt": (b"PK\x03\x04" + bytes(90), "zip archive"),
    "model.gguf": (b"GGUF" + bytes(90), "GGUF"),
    "page.html": ("<!DOCTYPE html>\n<html><body>x</body></html>\n", "web page"),
    "pointer.json": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
    "empty.json": ("", "empty file"),
}


def broken(path: Path) -> dict[str, Callable[[], object]]:
    """What makes `path` a file that no reader takes, by what is wrong with it."""
    return {
        "missing": lambda: None,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path.name),
        "huge": lambda: sparse(path),
        "binary": lambda: path.write_bytes(bytes(range(256)) * 4),
        "no text": lambda: path.write_bytes(b"a = '\xff\xfe'\n"),
        "utf-16": lambda: path.write_text(SCENARIO, encoding="utf-16"),
        "deep lists": lambda: path.write_text("[" * 5_000 + "]" * 5_000),
        "deep tables": lambda: path.write_text('{"a":' * 5_000 + "1" + "}" * 5_000),
        "deep toml": lambda: path.write_text("a = " + "[" * 5_000 + "]" * 5_000),
        "long key": lambda: path.write_text("a." * 100_000 + "a = 1\n"),
        "long number": lambda: path.write_text("9" * 100_000),
        "long cell": lambda: path.write_text("expert,rows\n" + "9" * 200_000 + ",1\n"),
        "open quote": lambda: path.write_text('expert,rows\n"0,1\n1,2\n'),
        "ragged": lambda: path.write_text("a,b\n1,2\n1,2,3\n"),
        "two columns": lambda: path.write_text("m,n,k,m,us\n1,2,3,4,5\n"),
        "blank": lambda: path.write_text(" \n\n\t\n"),
        "prose": lambda: path.write_text("This is not what you are looking for.\n"),
        "controls": lambda: path.write_text('{"\x1b[31mred": "\x07"}'),
    }


def sparse(path: Path) -> None:
    """A file of 10 GB that takes no place on disk."""
    with path.open("wb") as file:
        file.truncate(10**10)
