"""Reads the cgroup, the processes, the workers and the queues into one frozen `Snapshot`.

Nothing here decides anything or changes a process.
"""
