"""A Streamlit app, served for a browser, and its pages as the browser draws them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from places import ROOT

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

BARS = "[data-testid=stPlotlyChart] .bars .points path"
COMPLAINTS = "[data-testid=stException], [data-testid=stAlert]"


@contextmanager
def serving(app: Path) -> Iterator[str]:
    """The address, ending in a slash, at which a real Streamlit serves an app until the block
    ends."""
    with server_of(app) as (url, _):
        yield url


@contextmanager
def server_of(app: Path) -> Iterator[tuple[str, int]]:
    """The address of an app and the number of the process that serves it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = {"headless": "true", "port": port, "fileWatcherType": "none"}
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(app),
        *(f"--server.{k}={v}" for k, v in flags.items()),
    ]
    root = ROOT  # where .streamlit is
    server = subprocess.Popen(
        command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_healthy(server, f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}/", server.pid
    finally:
        server.terminate()
        server.wait(10)


def wait_until_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    for _ in range(300):
        assert server.poll() is None, "streamlit ended"
        try:
            with urlopen(url, timeout=5) as answer:
                assert answer.read() == b"ok"
                return
        except URLError:
            time.sleep(0.1)
    raise AssertionError(f"streamlit does not answer at {url}")


def open_page(browser: Chrome, url: str, bars: int) -> None:
    """Open a page and wait until its charts have all their bars; a complaint on it fails the
    test."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get_log("browser")  # what earlier pages left there
    browser.get(url)
    WebDriverWait(browser, 60).until(
        lambda page: len(page.find_elements(By.CSS_SELECTOR, BARS)) >= bars
    )
    assert len(browser.find_elements(By.CSS_SELECTOR, BARS)) == bars
    assert not browser.find_elements(By.CSS_SELECTOR, COMPLAINTS)


def severe_messages(browser: Chrome) -> list[str]:
    """What the browser logged as severe."""
    log = browser.get_log("browser")
    return [entry["message"] for entry in log if entry["level"] == "SEVERE"]


def served(url: str, page: str, query: str) -> float:
    """Seconds in which a server sends all of a page to a new visitor, without a browser."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect

    began = time.perf_counter()
    stream = f"{url.replace('http', 'ws')}_stcore/stream"
    with connect(stream, subprotocols=["streamlit"], max_size=None) as socket:  # type: ignore[list-item]
        asking, answer = BackMsg(), ForwardMsg()
        asking.rerun_script.query_string, asking.rerun_script.page_name = query, page
        socket.send(asking.SerializeToString())
        while answer.WhichOneof("type") != "script_finished":
            answer.ParseFromString(socket.recv(timeout=60))  # type: ignore[arg-type]
    return time.perf_counter() - began
