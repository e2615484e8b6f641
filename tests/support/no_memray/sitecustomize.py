"""A Python in which memray is not installed.

Python imports this by itself when its folder is on PYTHONPATH (see the documentation of `site`).
"""

import sys

sys.modules["memray"] = None  # type: ignore[assignment]
