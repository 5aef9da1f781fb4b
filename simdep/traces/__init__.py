"""Traces: timelines as files, written and read."""
