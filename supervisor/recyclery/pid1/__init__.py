"""PID 1: supervisord's state machine with the container's rules. No network, no database, never blocks.

Nothing here measures memory or decides about it.
"""
