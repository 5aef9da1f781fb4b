"""Operations: their columns, as users find them in the documentation."""

from __future__ import annotations

import re

import pytest
from places import ROOT

from simdep.hardware.operations import DTYPE_BYTES, OPERATIONS, Operation

PAGE = (ROOT / "simdep" / "docs" / "cost-models.md").read_text()


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_the_page_on_cost_models_lists_the_columns_of_every_operation(
    operation: Operation,
) -> None:
    row = re.search(rf"^\| `{operation.name}` \| (.*) \| (.*)\|$", PAGE, re.M)
    assert row
    features, attributes = (re.findall(r"`(\w+)`", cell) for cell in row.groups())
    assert features == list(operation.columns)
    assert attributes == list(operation.attributes)
    needed = re.findall(r"`(\w+)` \(needed\)", row[2])
    assert needed == list(operation.required)


def test_the_page_on_cost_models_lists_the_data_types() -> None:
    assert all(dtype in PAGE for dtype in DTYPE_BYTES)
