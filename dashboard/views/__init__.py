"""Pages of the dashboard, one file each. Streamlit gives a folder called `pages` a meaning of its
own: it answers an address with "page not found" before the navigation is known."""
