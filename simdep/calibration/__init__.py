"""Calibration: from measurements to a hardware profile, and how accurate a profile is."""
