"""Analysis: what a timeline says. Pure functions of timelines."""
