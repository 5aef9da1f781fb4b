"""The pages of the dashboard, drawn without a browser."""

from __future__ import annotations

import json
from typing import Any

from places import ROOT
from streamlit.testing.v1 import AppTest

APP = str(ROOT / "dashboard" / "app.py")
SMALL = {"layers": "4", "samples": "4", "seq_len": "512"}


def first_page(**address: str) -> AppTest:
    """The page of recorded runs at an address, drawn once; an exception in it fails the test."""
    return _drawn_at(AppTest.from_file(APP, default_timeout=60), address)


def page(**address: str) -> AppTest:
    """The page "What if" at an address, drawn once; an exception in it fails the test."""
    app = AppTest.from_file(APP, default_timeout=60)
    return _drawn_at(app.run().switch_page("views/what_if.py"), address)


def _drawn_at(app: AppTest, address: dict[str, str]) -> AppTest:
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
