"""What is: the cgroup, the processes, the workers, the queues, gathered into one frozen `Snapshot`.

Nothing here decides anything or changes a process.
"""
