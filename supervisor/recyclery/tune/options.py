"""What `recyclery tune` was told on the command line, checked."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from recyclery.config.fields import (
    BadConfiguration,
    NotAllowed,
    Parser,
    checked,
    number_of,
    settings_of,
    whole_number,
)
from recyclery.config.settings import Pool, Settings
from recyclery.config.sources import ON_THE_LINE, CommandLine, load_deployment, named_pool
from recyclery.tune.arrivals import read_load
from recyclery.tune.request import Request
from recyclery.tune.wishes import Wishes

UNASKED = (1, 2, 4, 8, 16)
UNASKED_REPEATS, MOST_REPEATS = 3, 10
TRACE_LOADS = ("70%", "85%", "95%")
# What a run begins with, and keeps.
KEPT = (
    *("app", "config", "pool", "task", "args", "generate", "concurrency", "max_tasks_per_child"),
    *("repeats", "seconds", "longest", "seed", "memory", "trace", "out"),
)


def read_request(args: argparse.Namespace, environment: Mapping[str, str]) -> tuple[Request, Settings]:
    """Return what is to be measured, and the settings it goes by; raises BadConfiguration."""
    for option, value in (("--pool", args.pool), ("--task", args.task)):
        if not value:
            raise BadConfiguration(f"{option} is missing: a tuning needs --pool NAME and --task NAME")
    settings = load_one_pool(args.pool, args.app, args.config, args.memory, environment)
    pool = settings.pools[0]
    concurrencies = read_numbers("--concurrency", args.concurrency, whole_number(1, 1000))
    most_tasks = settings_of(Pool)["max_tasks_per_child"].parse
    max_tasks = read_numbers("--max-tasks-per-child", args.max_tasks_per_child, most_tasks)
    seed = checked(whole_number(0, 2**32), "--seed", args.seed, ON_THE_LINE) if args.seed else draw_seed()
    repeats = checked(whole_number(1, 100), "--repeats", args.repeats, ON_THE_LINE) if args.repeats else None
    request = Request(
        app=settings.app,
        config=absolute(args.config),
        pool=pool.name,
        task=args.task,
        args=absolute(args.args),
        generate=args.generate,
        concurrencies=concurrencies or UNASKED,
        asked_for=bool(concurrencies),
        max_tasks=max_tasks or (pool.max_tasks_per_child,),
        repeats=repeats or UNASKED_REPEATS,
        most_repeats=repeats or MOST_REPEATS,
        seed=seed,
        least_seconds=checked(parse_seconds, "--seconds", args.seconds or 10, ON_THE_LINE),
        most_seconds=checked(parse_seconds, "--longest", args.longest or 300, ON_THE_LINE),
        memory_bytes=settings.memory.limit_bytes if args.memory else None,
        loads=read_loads(args) or (TRACE_LOADS if args.trace else ()),
        trace=absolute(args.trace),
        began=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    return request, settings


def resume_request(args: argparse.Namespace, request: Request) -> Request:
    """Return what a run that is resumed is to measure: what it began with, and further loads.

    Raises BadConfiguration for what cannot be changed any more.
    """
    for name in KEPT:
        if getattr(args, name) is not None:
            option = name.replace("_", "-")
            raise BadConfiguration(
                f"--{option} has no say beside --resume: a run goes on as it began; leave it out"
            )
    return msgspec.structs.replace(request, loads=tuple(dict.fromkeys([*request.loads, *read_loads(args)])))


def read_loads(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the loads that were named; raises BadConfiguration."""
    return tuple(checked(check_load, "--rate", load_text, ON_THE_LINE) for load_text in args.rate)


def read_wishes(args: argparse.Namespace, request: Request) -> Wishes:
    """Return what is wanted of the answer; raises BadConfiguration."""
    absolute = [load_text for load_text in args.rate or request.loads if not load_text.endswith("%")]
    return Wishes(
        pool=request.pool,
        objective=args.objective,
        slo_seconds=checked(parse_seconds, "--slo", args.slo, ON_THE_LINE) if args.slo else None,
        memory_bytes=request.memory_bytes,
        arrivals_per_second=read_load(absolute[0], 0.0) if absolute else None,
    )


def load_pool(request: Request, environment: Mapping[str, str]) -> Settings:
    """Return the settings that a run went by; raises BadConfiguration."""
    memory = str(request.memory_bytes) if request.memory_bytes else None
    return load_one_pool(request.pool, request.app, request.config, memory, environment)


def load_one_pool(
    name: str, app: str | None, config: str | None, memory: str | None, environment: Mapping[str, str]
) -> Settings:
    """Return the settings of a supervisor with that pool alone; raises BadConfiguration."""
    options = {"--app": app, "--memory-limit": memory}
    settings, pools = load_deployment(CommandLine(config=config, options=options), environment)
    pool = named_pool(name, pools)
    if not pool.forks:
        raise BadConfiguration(
            f"[pools.{name}] implementation is {pool.implementation!r}: only a prefork pool has "
            "children whose number and tasks can be tuned"
        )
    return msgspec.structs.replace(settings, pools=(pool,))


def read_numbers(option: str, text: str | None, parse: Parser) -> tuple[int, ...]:
    """Return numbers separated by commas, in ascending order, each once; raises BadConfiguration."""
    words = [word.strip() for word in text.split(",")] if text else []
    return tuple(sorted({checked(parse, option, word, ON_THE_LINE) for word in words}))


def absolute(path: str | None) -> str | None:
    """Return a file's path for whoever goes on from another folder."""
    return str(Path(path).absolute()) if path else None


def check_load(value: Any) -> str:
    """Return how many tasks come, as it was said."""
    try:
        read_load(str(value), 1.0)
    except ValueError:
        raise NotAllowed("a rate such as 2/s, 30/min or 100/h, or a share such as 85%") from None
    return str(value)


parse_seconds = number_of("seconds", 1, 86_400)


def draw_seed() -> int:
    """Return a seed that nobody chose."""
    return random.randrange(10_000)  # noqa: S311  # not a secret
