"""The dashboard: a page on recorded runs, predicted beside measured, and a page that answers
what-if questions.

    streamlit run dashboard/app.py

Each page is a module that reads from top to bottom: reading and computing first, drawing last.
"""

from __future__ import annotations

import streamlit as st

PAGES = (
    st.Page("views/recorded_runs.py", title="Predicted and measured", default=True),
    st.Page("views/what_if.py", title="What if", url_path="what-if"),
)

page = st.navigation(list(PAGES), position="top")
st.set_page_config(page_title=f"{page.title} · simdep", layout="wide")
page.run()
