"""Runs a command in a sandbox the size of a container: a memory cgroup, namespaces, a guard that ends it."""
