"""Scenario: what is served, on what; its work, its memory, the time of its tasks."""
