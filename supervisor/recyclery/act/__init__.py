"""Carries actions out, each in bounded time, and returns its outcome."""
