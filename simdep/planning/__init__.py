"""Planning: what to choose: solve, sweep, compare."""
