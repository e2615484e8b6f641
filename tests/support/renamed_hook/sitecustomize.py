"""A Celery whose next release gave a private part of its pool another name: RENAMED_HOOK, where that is set.

Python imports this by itself when its folder is on PYTHONPATH (see the documentation of `site`).
"""

import importlib.machinery
import os

HOOK = os.environ.get("RENAMED_HOOK", "").encode()
read_file = importlib.machinery.SourceFileLoader.get_data


def get_data(self: importlib.machinery.SourceFileLoader, path: str) -> bytes:
    """Return a file's content, Celery's pool with the new name in it and never from its bytecode."""
    if "asynpool" not in path or not HOOK:
        return read_file(self, path)
    if path.endswith(".pyc"):
        raise OSError(path)
    return read_file(self, path).replace(HOOK, HOOK + b"_anew")


importlib.machinery.SourceFileLoader.get_data = get_data  # type: ignore[assignment,method-assign]
