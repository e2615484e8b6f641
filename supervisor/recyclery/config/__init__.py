"""Settings: what may be set, where a value may come from, and the checks it all passes before a start.

Nothing here starts, watches or changes a process.
"""
