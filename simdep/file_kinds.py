"""What a file of the field looks like, told by its first bytes: the nouns of messages such as `it
looks like a Kineto trace; expected a hardware profile`.

A kind has a mark: bytes that it begins with, or names (keys of JSON or TOML, columns of CSV) that
it has. Add a kind by adding a line to its list; the first line that fits wins.
"""

from __future__ import annotations

import re

SCHEDULE = "a schedule"
PROFILE = "a hardware profile"
SCENARIO = "a scenario"
STAGE_COSTS = "stage costs"
MOE_CONFIG = "the config.json of an MoE model"
ROUTING = "a routing"
MEASUREMENTS = "measurements of operations"
EVENTS = "events of a real run"
PUBLISHED = "a table of published figures"
TIMELINE = "a timeline"
SWEEP = "the table of a sweep"
SWEEP_KEY = "the parameters of a sweep"
CASES = "a list of schedules for realrun"
RESULT = "the result of a validation"
PLAN = "the plan of a measurement"
RUNS = "the runs of a measurement"

FORMATS = {  # kinds that say no more than the format
    "a CSV table": "CSV",
    "a JSON object": "JSON",
    "a JSON list": "JSON",
    "a file of JSON lines": "JSON lines",
    "a TOML file": "TOML",
    "a YAML file": "YAML",
}
_MAGIC = (
    (b"PAR1", "a Parquet table"),
    (b"SQLite format 3\0", "an SQLite database, such as Nsight Systems exports"),
    (b"PK\x03\x04", "a zip archive, such as a PyTorch checkpoint"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"GGUF", "a GGUF checkpoint"),
    (b"\x7fELF", "a program"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x80\x04", "a Python pickle"),
    (b"\xff\xfe", "a text in UTF-16"),
    (b"\xfe\xff", "a text in UTF-16"),
    (b"#!", "a script"),
)
_JSON = (  # keys, all of which it has
    ("metadata simdep traceEvents", "a trace of simdep"),
    ("deviceProperties traceEvents", "a Kineto trace"),
    ("schemaVersion traceEvents", "a Kineto trace"),
    ("traceEvents", "a Chrome trace"),
    ("format streams task", SCHEDULE),
    ("format streams", SCHEDULE),
    ("format costs name", PROFILE),
    ("format kernels name", PROFILE),
    ("costs kernels", PROFILE),
    ("hidden_size n_routed_experts", MOE_CONFIG),
    ("hidden_size num_experts", MOE_CONFIG),
    ("hidden_size num_local_experts", MOE_CONFIG),
    ("hidden_size moe_num_experts", MOE_CONFIG),
    ("hidden_size num_experts_per_tok", MOE_CONFIG),
    ("num_hidden_layers hidden_size", "the config.json of a dense model"),
    ("n_layer n_embd", "the config.json of a dense model"),
    ("hidden_size num_attention_heads", "the config.json of a dense model"),
    ("weight_map metadata", "the index of a checkpoint"),
    ("model_max_length tokenizer_class", "the configuration of a tokenizer"),
    ("eos_token_id temperature", "the configuration of generation"),
    ("mean_ttft_ms", "a benchmark result of vLLM or SGLang"),
    ("request_throughput", "a benchmark result of vLLM or SGLang"),
    ("timestamp input_length output_length", "a Mooncake request trace"),
    ("input_length output_length", "a request trace"),
    ("conversations", "a ShareGPT data set"),
    ("prompt completion", "a data set of prompts"),
    ("scenario vary solve", SWEEP_KEY),
    ("predicted_us measured_us ci_us", RESULT),
    ("backend cases jobs", PLAN),
    ("index ranks", RUNS),
    ("best lower_bound_us gap_pct", "the output of simdep solve --json"),
    ("policies makespan_us", "the output of simdep compare --json"),
    ("points vary rows", "the output of simdep sweep --json"),
    ("makespan_us critical_path", "the output of simdep simulate --json"),
    ("alpha_us attention link", STAGE_COSTS),
    ("nbformat cells", "a notebook"),
)
_CSV = (  # columns, all of which it has
    ("TIMESTAMP ContextTokens GeneratedTokens", "a request trace of Azure LLM inference"),
    ("Timestamp Model Request_tokens Response_tokens", "a BurstGPT request trace"),
    ("input_length output_length", "a request trace"),
    ("arrived_at num_prefill_tokens num_decode_tokens", "a request trace of Vidur"),
    ("expert_id count", ROUTING),
    ("expert rows", ROUTING),
    ("task kind layer start_us end_us", TIMELINE),
    ("mode node op layer start_ms end_ms", EVENTS),
    ("node op layer start_ms end_ms", EVENTS),
    ("makespan_us throughput_tokens_per_s ag_bubble_pct", SWEEP),
    ("mode phase node_num sms us", "measurements of operations"),
    ("Start_(ns) Duration_(ns)", "a table of Nsight Systems"),
    ("Time_(%) Total_Time_(ns)", "a statistics table of Nsight Systems"),
    ("Kernel_Name Metric_Name", "a table of Nsight Compute"),
    ("us m n k", MEASUREMENTS),
    ("us num_tokens", MEASUREMENTS),
    ("us batch_size", MEASUREMENTS),
    ("us gpu", MEASUREMENTS),
    ("us dtype", MEASUREMENTS),
    ("us op", MEASUREMENTS),
)
_TOML = (
    ("attention expert link alpha_us", STAGE_COSTS),
    ("attention expert alpha_us", STAGE_COSTS),
    ("model deployment", SCENARIO),
    ("model workload", SCENARIO),
    ("model schedule", SCENARIO),
    ("deployment ag eg", SCENARIO),
    ("costs deployment", SCENARIO),
    ("build-system", "the pyproject.toml of a package"),
    ("model", SCENARIO),
)
_FIRST_LINES = (
    (rb"<(!doctype|html)", "a web page"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (rb"(import|from|def|class) \w", "a Python program"),
    (rb'("""|\'\'\')', "a Python program"),
    (rb"(usage|error|Traceback)\b", "the output of a program"),
)
_JSON_KEY = re.compile(rb'"([^"\\\n]{1,60})"\s*:')
_TOML_KEY = re.compile(rb"(?:^|[{,])[ \t]*\[?([A-Za-z][\w-]{0,60})[ \t]*(?:=|\])", re.MULTILINE)
_YAML_LINE = re.compile(rb"^[A-Za-z_][\w-]*:( |$)", re.MULTILINE)


def kind_of(head: bytes) -> str:
    """The kind of a file that begins with these bytes; empty for one that is not known."""
    if not head.strip():
        return "an empty file"
    return _of_bytes(head) or _of_text(head.removeprefix(b"\xef\xbb\xbf").lstrip())


def _of_bytes(head: bytes) -> str:
    """The kind of a file that is no text."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[8:10] == b'{"' and b"dtype" in head[:4096]:
        return "a safetensors checkpoint"
    return "a binary file" if b"\0" in head else ""


def _of_text(text: bytes) -> str:
    for pattern, kind in _FIRST_LINES:
        if re.match(pattern, text, re.IGNORECASE):
            return kind
    if text.startswith(b"{"):
        return _fitting(_JSON, _names(_JSON_KEY, text)) or _unknown_json(text)
    if re.match(rb"\[\s*(\[\s*[\[\d.-]|\{|[\d.-])", text):
        return _of_list(text)
    return "a Markdown text" if b"\n```" in text else _of_lines(text)


def _of_list(text: bytes) -> str:
    """The kind of a JSON list."""
    keys = _names(_JSON_KEY, text)
    if not keys:
        return ROUTING
    if {"model", "ag", "eg"} <= keys or {"policy", "r1"} <= keys:
        return CASES
    return _fitting(_JSON, keys) or "a JSON list"


def _of_lines(text: bytes) -> str:
    """The kind of a text that is no JSON: TOML, YAML or CSV, by its keys or columns."""
    toml = _names(_TOML_KEY, text)
    if kind := _fitting(_TOML, toml):
        return kind
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(b"#")]
    header = lines[0] if lines else b""
    columns = {name.strip().strip(b'"').replace(b" ", b"_") for name in header.split(b",")}
    if kind := _fitting(_CSV, {name.decode("utf-8", "replace") for name in columns}):
        return kind
    if toml:
        return "a TOML file"
    commas = {line.count(b",") for line in lines[:3]}
    if len(commas) == 1 and commas != {0}:
        return "a CSV table"
    return "a YAML file" if _YAML_LINE.search(text) else ""


def _unknown_json(text: bytes) -> str:
    first_line = text.partition(b"\n")[0].rstrip()
    several = first_line.endswith(b"}") and text.count(b"\n{")
    return "a file of JSON lines" if several else "a JSON object"


def _names(pattern: re.Pattern[bytes], text: bytes) -> set[str]:
    return {name.decode("utf-8", "replace") for name in pattern.findall(text)}


def _fitting(kinds: tuple[tuple[str, str], ...], names: set[str]) -> str:
    return next((kind for needed, kind in kinds if set(needed.split()) <= names), "")
