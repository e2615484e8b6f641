"""PID 1: supervisord with the rules of a container. No network, no database; it never blocks."""
