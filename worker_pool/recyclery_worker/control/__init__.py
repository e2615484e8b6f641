"""What the governor asks of a worker, and what the worker reports to it."""
