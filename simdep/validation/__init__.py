"""Validation: predictions beside what others measured."""
