"""Runs a command like a container: in a memory cgroup and namespaces, under a guard that cleans up."""
