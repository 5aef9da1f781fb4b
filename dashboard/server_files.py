"""Files of the server that visitors may name: none, unless the page is for this machine alone.

The server listens to this machine alone (`server.address` of Streamlit), or whoever started it
allows it by SIMDEP_SERVER_FILES=1.
"""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

from simdep.checks import InputError, shown

FLAG = "SIMDEP_SERVER_FILES"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FILE_SUFFIXES = (".json", ".csv")


def may_name_files() -> bool:
    """Whether visitors may name files and folders of the server."""
    return st.get_option("server.address") in LOOPBACK or os.environ.get(FLAG) == "1"


def check_name(key: str, value: str) -> None:
    """Raise InputError for a value that names a file, where visitors may not."""
    named = os.sep in value or Path(value).suffix in FILE_SUFFIXES or os.path.exists(value)
    if named and not may_name_files():
        raise InputError(
            f"{key}={shown(value)}; a page that others can open reads no files of its server, "
            f"unless it was started with {FLAG}=1"
        )
