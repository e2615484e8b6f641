"""PID 1's XML-RPC methods for the governor in addition to supervisord's: `recyclery.*` on the same socket."""

from __future__ import annotations

from typing import Any

from supervisor.states import ProcessStates, SupervisorStates, getProcessStateDescription
from supervisor.supervisord import Supervisor
from supervisor.xmlrpc import Faults, RPCError

from recyclery.pid1.worker_process import WorkerProcess


class WorkersInterface:
    """The workers in all slots. No method blocks."""

    def __init__(self, supervisord: Supervisor) -> None:
        self._options: Any = supervisord.options

    def list_workers(self) -> list[dict[str, object]]:
        """Return the worker in each slot with the time since its last start; pid is 0 where none runs."""
        self._refuse_at_shutdown()
        return [
            {
                "slot": slot,
                "pool": worker.pool.name,
                "state": "draining" if worker.draining else getProcessStateDescription(worker.state).lower(),
                "pid": worker.pid,
                "age_seconds": float(self._options.clock.time() - worker.laststart),
                "outdated": worker.is_outdated(),
                "forks": worker.pool.forks,
                "end": worker.end,
            }
            for slot, worker in self._options.workers.items()
        ]

    def leave(self, slot: str) -> bool:
        """Have the worker end after its tasks, and stay stopped."""
        self._running(slot).drain_tasks(restart=False)
        return True

    def renew(self, slot: str) -> bool:
        """Have the worker end after its tasks, and restart it."""
        self._running(slot).drain_tasks(restart=True)
        return True

    def _running(self, slot: str) -> WorkerProcess:
        self._refuse_at_shutdown()
        worker: WorkerProcess | None = self._options.workers.get(slot)
        if worker is None:
            raise RPCError(Faults.BAD_NAME, slot)
        if worker.state not in {ProcessStates.STARTING, ProcessStates.RUNNING}:
            raise RPCError(Faults.NOT_RUNNING, slot)
        return worker

    def _refuse_at_shutdown(self) -> None:
        if self._options.mood < SupervisorStates.RUNNING:
            raise RPCError(Faults.SHUTDOWN_STATE)
