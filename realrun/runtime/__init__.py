"""Runtime: what one rank holds and does."""
