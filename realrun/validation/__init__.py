"""Validation: predicted against measured."""
