"""Simulation: from a schedule and task times to a timeline, or to a makespan alone."""
