"""What the pools' tasks have been seen to cost, kept over restarts of the governor in `models.json`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from recyclery.common.pool_state import PoolState
from recyclery.decide.memory_model import PoolModel, TaskTracker, follow, learn, learn_idle
from recyclery.observe.snapshot import Child, Owner, Snapshot

log = logging.getLogger("recyclery")

STORE_EVERY_SECONDS = 30.0
MODELS_VERSION = 1


class StoredModels(msgspec.Struct, frozen=True):
    """The file's content."""

    version: int
    models: dict[str, PoolModel]


class ModelStore:
    """Follows every child and learns a model of each pool."""

    def __init__(self, path: Path) -> None:
        self.models: dict[str, PoolModel] = load_models(path)
        self.trackers: dict[Owner, TaskTracker] = {}
        self._path = path
        self._stored_at: float | None = None
        self._changed = False
        self._complained = False

    def update(self, snapshot: Snapshot) -> None:
        """Learn from one look at all children."""
        mains = {view.pid: view.state is PoolState.RUNNING for view in snapshot.workers}
        for child in snapshot.children:
            # One that ended as it was read holds nothing; a main process that still starts is no child yet.
            if is_common(child) and child.tree_bytes and mains.get(child.owner.pid, True):
                model = self.models.get(child.owner.pool, PoolModel())
                self.models[child.owner.pool] = learn_idle(model, child.tree_bytes)
        self.trackers, runs = follow(self.trackers, snapshot)
        for run in runs:
            self.models[run.pool] = learn(self.models.get(run.pool, PoolModel()), run)
            self._changed = True

    def store_is_due(self, at: float) -> bool:
        """Tell whether there is something to store and the last time is long enough ago."""
        if not self._changed:
            return False
        return self._stored_at is None or at - self._stored_at >= STORE_EVERY_SECONDS

    def store(self, at: float) -> None:
        """Write the models, whole or not at all; where that cannot be done say so once and go on without."""
        self._stored_at, self._changed = at, False
        beside = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(
                msgspec.json.encode(StoredModels(version=MODELS_VERSION, models=dict(self.models)))
            )
            os.replace(beside, self._path)  # noqa: PTH105  # one step, as rename(2) is
        except OSError as error:
            if not self._complained:
                log.warning("what was learned cannot be kept: %s: %s", self._path, error.strerror)
            self._complained = True


def is_common(child: Child) -> bool:
    """Tell whether a child is idle, and holds what any other would: no record of its allocations."""
    return child.task_id is None and not child.tracing


def load_models(path: Path) -> dict[str, PoolModel]:
    """Return the stored models; none where there are none or they cannot be read, saying why."""
    try:
        store = msgspec.json.decode(path.read_bytes(), type=StoredModels)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        log.warning("what was learned before is left aside: %s: %s", path, error)
        return {}
    if store.version != MODELS_VERSION:
        log.warning("what was learned before is left aside: %s is of version %d", path, store.version)
        return {}
    return store.models
