"""The settings, their sources and their checks. Nothing here starts, watches or changes a process."""
