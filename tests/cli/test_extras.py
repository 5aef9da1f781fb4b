"""What needs an optional package says which, and how to install it."""

from __future__ import annotations

import pytest
from cli import one_sentence

from simdep.cli.run import run_command


def test_a_missing_optional_package_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def draw() -> int:
        raise ModuleNotFoundError("No module named 'plotly'", name="plotly")

    assert run_command("simdep", draw) == 2
    one_sentence(capsys, "simdep: this needs plotly; pip install 'simdep[figures]'")


def test_a_missing_module_of_our_own_is_a_mistake_of_ours() -> None:
    def broken() -> int:
        raise ModuleNotFoundError("No module named 'simdep.nothing'", name="simdep.nothing")

    with pytest.raises(ModuleNotFoundError):
        run_command("simdep", broken)
