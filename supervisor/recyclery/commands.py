"""What operators may ask of the governor: each command of the control socket, and how it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from recyclery.config.fields import BadConfiguration
from recyclery.config.live import change_settings
from recyclery.config.stored import write_settings
from recyclery.decide.browsers import count_kinds
from recyclery.decide.reap import evict_strangers, find_reaps
from recyclery.serve.control import Command, Done, Handler, Problem, Reaped
from recyclery.serve.recycle import Recycling, tell_recycling, why_not
from recyclery.serve.status import Status
from recyclery.serve.trace import Tracing, ask_to_trace

if TYPE_CHECKING:
    from recyclery.governor import Governor

log = logging.getLogger("recyclery")


def list_commands(governor: Governor) -> Mapping[str, Handler]:
    """Return the governor's answers by command."""

    async def status(_: Command) -> Status:
        return await governor.status()

    async def glance(_: Command) -> Status:
        return await governor.glance()

    async def change(command: Command) -> Done | Problem:
        return change_values(governor, command)

    async def reap(command: Command) -> Reaped:
        return await reap_now(governor, strangers=command.strangers)

    async def recycle(command: Command) -> Recycling | Problem:
        return await begin_recycling(governor, command.table)

    async def recycling(command: Command) -> Recycling | Problem:
        return follow_recycling(governor, command.table)

    async def trace(command: Command) -> Tracing | Problem:
        return await begin_tracing(governor, command.table, command.values)

    return {
        "trace": trace,
        "status": status,
        "glance": glance,
        "set": change,
        "reap": reap,
        "recycle": recycle,
        "recycling": recycling,
    }


def change_values(governor: Governor, command: Command) -> Done | Problem:
    """Change settings of the running governor, and of one that comes after it."""
    try:
        changed = change_settings(governor.settings, command.table, command.values)
    except BadConfiguration as error:
        return Problem(error=str(error))
    what = ", ".join(f"{key} = {value}" for key, value in command.values.items())
    try:
        # PID 1 writes it anew at every start.
        write_settings(changed)
    except OSError as error:
        return Problem(error=f"{changed.runtime_dir}: {error.strerror}")
    governor.follow(changed)
    log.info("set %s: %s", command.table, what)
    return Done(done=f"{command.table}: {what}, until the supervisor's next start")


async def reap_now(governor: Governor, *, strangers: bool) -> Reaped:
    """Look now and kill what a tick would; browsers that no pool started only where that is asked for."""
    async with governor.acting:
        snapshot, settings = governor.observe(), governor.settings
        past = governor.ledger.past(governor.learning.models)
        evictions = evict_strangers(snapshot) if strangers else ()
        outcomes = await asyncio.gather(
            *(
                governor.deeds.carry_out(action, snapshot)
                for action in (*find_reaps(snapshot, past, settings), *evictions)
            )
        )
    census = count_kinds(snapshot, past.silences, settings.browsers)
    return Reaped(
        killed=[outcome.line for outcome in outcomes],
        in_use=census.in_use,
        strangers=0 if strangers else census.strangers,
    )


async def begin_recycling(governor: Governor, pool: str) -> Recycling | Problem:
    """Have a pool's worker replaced as soon as it can be; tell of the one that is to go."""
    await governor.hearsay.ask_programs()
    async with governor.acting:
        snapshot = governor.observe()
    handoffs = governor.ledger.handoffs
    refusal = why_not(pool, snapshot, handoffs)
    if refusal is not None:
        return Problem(error=refusal)
    handoffs.ask(pool)
    governor.wake()
    return tell_recycling(pool, snapshot, handoffs) or Problem(error=f"{pool} is gone")


async def begin_tracing(governor: Governor, pool: str, order: Mapping[str, str]) -> Tracing | Problem:
    """Have a child of a pool trace the allocations of a task; tell which one."""
    async with governor.acting:
        snapshot = governor.observe()
    answer = await ask_to_trace(governor.settings.runtime_dir, pool, order, snapshot)
    if isinstance(answer, Tracing):
        line = f"trace {order['task']} in {pool}/{answer.pid}: asked for; the child leaves when that is over"
        log.info("%s", line)
        governor.recent.note(snapshot.at, line)
    return answer


def follow_recycling(governor: Governor, pool: str) -> Recycling | Problem:
    """Tell how far a pool's replacement is."""
    snapshot = governor.snapshot
    found = tell_recycling(pool, snapshot, governor.ledger.handoffs) if snapshot is not None else None
    return found or Problem(error=f"{pool!r} is not known yet")
