"""Calibration: micro-benchmarks on ranks, as a hardware profile."""
