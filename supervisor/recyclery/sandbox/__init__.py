"""Runs a command under a guard that ends it, and everything that it started, when its starter is gone."""
