"""Every reader meets every kind of file: what it can't take ends with one sentence and code 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bad_inputs import READERS, WRITES_WHAT_IS_MISSING
from cli import refused
from foreign import KINDS, SCENARIO, broken

from simdep import files

RIGHT_BUT_FOR_FORMAT = {  # the right noun in another format, or nothing yet
    ("stages in JSON", "stages.toml"),
    ("routing lists", "routing.csv"),
    ("scenario", "empty.json"),
    ("swept", "empty.json"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_another_kind_is_refused_by_its_name(
    reader: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, suffix, taken = READERS[reader]
    if kind in taken:
        pytest.skip("the reader takes it")
    content, description = KINDS[kind]
    path = tmp_path / f"given{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    monkeypatch.chdir(tmp_path)
    sentence = refused(capsys, command.replace("FILE", path.name))
    assert path.name in sentence
    if reader not in WRITES_WHAT_IS_MISSING and (reader, kind) not in RIGHT_BUT_FOR_FORMAT:
        assert f"it looks like {files.describe(path)}; expected " in sentence
        assert description in sentence


@pytest.mark.parametrize("fault", broken(Path()))
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_can_not_be_read_is_refused_by_its_name(
    reader: str,
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, suffix, _ = READERS[reader]
    if fault in ("missing", "loop") and reader in WRITES_WHAT_IS_MISSING:
        pytest.skip("the file is written")
    path = tmp_path / f"given{suffix}"
    broken(path)[fault]()
    monkeypatch.chdir(tmp_path)
    assert path.name in refused(capsys, command.replace("FILE", path.name))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_what_it_looks_like(kind: str, tmp_path: Path) -> None:
    content, description = KINDS[kind]
    path = tmp_path / "any"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert description in files.describe(path)


def test_what_is_no_file_looks_like_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, tmp_path / "none", Path("/dev/zero"), Path("a\0b")):
        assert files.describe(path) == ""


def test_a_value_of_the_wrong_type_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(SCENARIO.replace("layers = 2", "layers = 'two'"))
    assert refused(capsys, "simdep simulate s.toml").startswith("simdep: s.toml: layers='two'")
