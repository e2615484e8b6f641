"""Recyclery: PID 1, the governor and the command line."""

__version__ = "0.1.0"
