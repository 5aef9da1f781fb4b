"""The version of simdep."""

VERSION = "0.1.0"
