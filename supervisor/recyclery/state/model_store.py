"""The pools' memory models, kept across restarts of the governor in `models.json`."""

import logging
import os
from pathlib import Path

import msgspec

from recyclery.common.pool_state import PoolState
from recyclery.decide.memory_model import PoolModel, TaskTracker, learn, learn_idle, update_trackers
from recyclery.decide.policy_state import is_recent
from recyclery.observe.snapshot import Owner, Snapshot

log = logging.getLogger("recyclery")

STORE_EVERY_SECONDS = 30.0
MODELS_VERSION = 1


class StoredModels(msgspec.Struct, frozen=True):
    """The file's content."""

    version: int
    models: dict[str, PoolModel]


class ModelStore:
    """Learns a memory model of each pool from its children's task runs."""

    def __init__(self, path: Path) -> None:
        self.models: dict[str, PoolModel] = load_models(path)
        self.trackers: dict[Owner, TaskTracker] = {}
        self._path = path
        self._stored_at: float | None = None
        self._changed = False
        self._complained = False

    def update(self, snapshot: Snapshot) -> None:
        """Learn from a snapshot."""
        mains = {view.pid: view.state is PoolState.RUNNING for view in snapshot.workers}
        for child in snapshot.children:
            # A child that exited while it was read has 0 bytes; a main process that runs tasks may still start.
            starting = not mains.get(child.owner.pid, True)
            if child.task_id is None and not child.tracing and child.tree_bytes and not starting:
                model = self.models.get(child.owner.pool, PoolModel())
                self.models[child.owner.pool] = learn_idle(model, child.tree_bytes)
        self.trackers, runs = update_trackers(self.trackers, snapshot)
        for run in runs:
            self.models[run.pool] = learn(self.models.get(run.pool, PoolModel()), run)
            self._changed = True

    def store_is_due(self, at: float) -> bool:
        """Return whether there is something to store and the last time is long enough ago."""
        return self._changed and not is_recent(self._stored_at, at, STORE_EVERY_SECONDS)

    def store(self, at: float) -> None:
        """Write the models, whole or not at all; a failure is logged once."""
        self._stored_at, self._changed = at, False
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(msgspec.json.encode(StoredModels(version=MODELS_VERSION, models=dict(self.models))))
            os.replace(new, self._path)  # noqa: PTH105  # one step, as rename(2) is
        except OSError as error:
            if not self._complained:
                log.warning("what was learned cannot be kept: %s: %s", self._path, error.strerror)
            self._complained = True


def load_models(path: Path) -> dict[str, PoolModel]:
    """Return the stored models; none where there is no file, or it cannot be read, which is logged."""
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
