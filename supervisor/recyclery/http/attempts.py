"""How often a wrong token may be tried: a few times at once, then one every few seconds, for all together.

By address would be no bound: behind a platform's proxy all have one, and what that says of them can be made up.
"""

from __future__ import annotations

AT_ONCE = 5
EVERY_SECONDS = 2.0


class Attempts:
    """What was tried in vain. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait_seconds(self, now: float) -> float:
        """Return how long nobody may try; 0 where one may."""
        return max(0.0, self._free_at - (AT_ONCE - 1) * EVERY_SECONDS - now)

    def note_wrong(self, now: float) -> None:
        """Take down one more."""
        self._free_at = max(self._free_at, now) + EVERY_SECONDS
