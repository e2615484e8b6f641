"""What the governor asks of PID 1 beyond supervisord's own methods: `recyclery.*` on the same socket."""

from __future__ import annotations

from typing import Any

from supervisor.states import ProcessStates, SupervisorStates, getProcessStateDescription
from supervisor.supervisord import Supervisor
from supervisor.xmlrpc import Faults, RPCError

from recyclery.pid1.worker_process import PoolProcess


class WorkersInterface:
    """The workers in all slots. Each method answers at once."""

    def __init__(self, supervisord: Supervisor) -> None:
        self._options: Any = supervisord.options

    def list_workers(self) -> list[dict[str, object]]:
        """Return what is in each slot, its age since its last start; pid is 0 where nothing runs."""
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
        """Have the worker end after its tasks, and stay away."""
        self._running(slot).leave()
        return True

    def renew(self, slot: str) -> bool:
        """Have the worker end after its tasks, and start anew."""
        self._running(slot).renew()
        return True

    def _running(self, slot: str) -> PoolProcess:
        self._refuse_at_shutdown()
        worker: PoolProcess | None = self._options.workers.get(slot)
        if worker is None:
            raise RPCError(Faults.BAD_NAME, slot)
        if worker.state not in {ProcessStates.STARTING, ProcessStates.RUNNING}:
            raise RPCError(Faults.NOT_RUNNING, slot)
        return worker

    def _refuse_at_shutdown(self) -> None:
        if self._options.mood < SupervisorStates.RUNNING:
            raise RPCError(Faults.SHUTDOWN_STATE)
