"""The states of a pool's worker, and how they are judged: here, once, for all who judge them."""

from __future__ import annotations

from enum import StrEnum


class PoolState(StrEnum):
    """supervisord's state of a worker's process, or a finer one that the governor knows."""

    RUNNING = "running"
    STARTING = "starting"
    DRAINING = "draining"
    """It was told to leave, and finishes the tasks that it has."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    BACKOFF = "backoff"
    """supervisord waits before it starts it again."""
    EXITED = "exited"
    FATAL = "fatal"
    """supervisord has given it up."""
    UNKNOWN = "unknown"
    NOT_ANSWERING = "not answering"
    WAITING_FOR_BROKER = "waiting for broker"
    NOT_KNOWN_YET = "not known yet"
    """The governor has only just started."""

    @classmethod
    def _missing_(cls, value: object) -> PoolState:
        """Take a state that only a later version knows for an unknown one."""
        return cls.UNKNOWN

    @property
    def is_healthy(self) -> bool:
        """Whether `recyclery health` and /readyz leave it alone: a restart brings no broker back."""
        return self.is_up or self is PoolState.WAITING_FOR_BROKER

    @property
    def is_up(self) -> bool:
        """Whether it works on tasks: `recyclery_pool_up`, and no alert."""
        return self in {PoolState.RUNNING, PoolState.DRAINING}

    @property
    def takes_requests(self) -> bool:
        """Whether its main process answers the governor's requests."""
        return self in {PoolState.RUNNING, PoolState.STARTING}

    @property
    def is_changing(self) -> bool:
        """Whether it becomes another state by itself, soon: a worry in `top` and on the page, not a fault."""
        return self.is_leaving or self is PoolState.STARTING

    @property
    def is_leaving(self) -> bool:
        """Whether its worker was told to leave."""
        return self in {PoolState.DRAINING, PoolState.STOPPING}

    @property
    def is_failing(self) -> bool:
        """Whether its worker keeps dying."""
        return self in {PoolState.BACKOFF, PoolState.FATAL}
