"""What operators may ask of the governor: each command of the control socket, and how it is answered."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from recyclery.config.change import change_settings
from recyclery.config.keys import BadConfiguration
from recyclery.config.stored import write_settings
from recyclery.serve.control import Command, Done, Handler, Problem, Reaped
from recyclery.serve.recycle import Recycling
from recyclery.serve.status import Status

if TYPE_CHECKING:
    from recyclery.governor import Governor

log = logging.getLogger("recyclery")


def list_commands(governor: Governor) -> Mapping[str, Handler]:
    """Return the governor's answers by command."""

    async def status(_: Command) -> Status:
        return await governor.status()

    async def change(command: Command) -> Done | Problem:
        return change_values(governor, command)

    async def reap(command: Command) -> Reaped:
        return await governor.reap(strangers=command.strangers)

    async def recycle(command: Command) -> Recycling | Problem:
        return await governor.recycle(command.table)

    async def recycling(command: Command) -> Recycling | Problem:
        return governor.recycling(command.table)

    return {"status": status, "set": change, "reap": reap, "recycle": recycle, "recycling": recycling}


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
