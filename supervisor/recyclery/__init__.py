"""Recyclery: PID 1, the governor and the command line."""

__version__ = "0.2.0.dev0"
