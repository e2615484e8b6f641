"""The heartbeat that the governor writes, and `recyclery health`, which reads it."""
