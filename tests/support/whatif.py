"""The page "What if", drawn without a browser."""

from __future__ import annotations

import json
from typing import Any

from places import ROOT
from streamlit.testing.v1 import AppTest

SMALL = {"layers": "4", "samples": "4", "seq_len": "512"}


def page(**address: str) -> AppTest:
    """The page at an address, drawn once; an exception in it fails the test."""
    app = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=60)
    app.run().switch_page("views/what_if.py")
    for key, value in address.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def figure(app: AppTest, number: int) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(app.get("plotly_chart")[number].proto.spec)
    return spec


def told(elements: Any) -> list[str]:
    """What errors or warnings say, without the backslashes that keep Markdown off."""
    return [str(element.value).replace("\\", "") for element in elements]


def tiles(app: AppTest) -> dict[str, tuple[str, str]]:
    """What the tiles say: label -> value and note."""
    return {metric.label: (metric.value, metric.delta) for metric in app.metric}


def address_of(app: AppTest) -> dict[str, str]:
    return {key: "".join(value) for key, value in app.query_params.items()}
