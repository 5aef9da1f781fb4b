"""Published measurements of real systems beside simdep's predictions: one module a publication."""
