"""Hardware: what one operation takes on one machine, by its shape. Knows no model and no
schedule."""
