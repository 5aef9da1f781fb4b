"""The dashboard: a page on recorded runs, predicted beside measured, and a page that answers
what-if questions.

    streamlit run dashboard/app.py

Each page is a module that reads from top to bottom: reading and computing first, drawing last.
"""

from __future__ import annotations

import sys

import streamlit as st

from dashboard.caches import spare_collector

SWITCH_S = 0.001  # after which a visit that computes gives way to the others
PAGES = (
    st.Page("views/recorded_runs.py", title="Predicted and measured", default=True),
    st.Page("views/what_if.py", title="What if", url_path="what-if"),
)

sys.setswitchinterval(SWITCH_S)
page = st.navigation(list(PAGES), position="top")
st.set_page_config(page_title=f"{page.title} · simdep", layout="wide")
page.run()
spare_collector(page.title)
