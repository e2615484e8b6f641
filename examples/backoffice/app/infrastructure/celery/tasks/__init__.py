"""The back office's tasks, one module per concern."""
