"""The command line of `recyclery tune`, checked."""

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
from recyclery.tune.spec import Objective, Spec, parse_rate

DEFAULT_LEVELS = (1, 2, 4, 8, 16)
DEFAULT_REPEATS, MOST_REPEATS = 3, 10
TRACE_LOADS = ("70%", "85%", "95%")
# What a run begins with, and keeps.
FIXED_OPTIONS = (
    *("app", "config", "pool", "task", "args", "generate", "concurrency", "max_tasks_per_child"),
    *("repeats", "seconds", "longest", "seed", "memory", "trace", "out"),
)
parse_duration = number_of("seconds", 1, 86_400)


def read_spec(args: argparse.Namespace, environment: Mapping[str, str]) -> tuple[Spec, Settings]:
    """Return what is to be measured, and the settings of the pool; raises BadConfiguration."""
    for option, value in (("--pool", args.pool), ("--task", args.task)):
        if not value:
            raise BadConfiguration(f"{option} is missing: a tuning needs --pool NAME and --task NAME")
    settings = load_one_pool(args.pool, args.app, args.config, args.memory, environment)
    pool = settings.pools[0]
    concurrencies = read_numbers("--concurrency", args.concurrency, whole_number(1, 1000))
    parse_tasks = settings_of(Pool)["max_tasks_per_child"].parse
    max_tasks = read_numbers("--max-tasks-per-child", args.max_tasks_per_child, parse_tasks)
    repeats = read("--repeats", whole_number(1, 100), args.repeats)
    seed = read("--seed", whole_number(0, 2**32), args.seed)
    spec = Spec(
        app=settings.app,
        config=absolute(args.config),
        pool=pool.name,
        task=args.task,
        args=absolute(args.args),
        generate=args.generate,
        concurrencies=concurrencies or DEFAULT_LEVELS,
        asked_for=bool(concurrencies),
        max_tasks=max_tasks or (pool.max_tasks_per_child,),
        repeats=repeats or DEFAULT_REPEATS,
        most_repeats=repeats or MOST_REPEATS,
        seed=random.randrange(10_000) if seed is None else seed,  # noqa: S311  # not a secret
        least_seconds=read("--seconds", parse_duration, args.seconds, 10.0),
        most_seconds=read("--longest", parse_duration, args.longest, 300.0),
        memory_bytes=settings.memory.limit_bytes if args.memory else None,
        loads=read_loads(args) or (TRACE_LOADS if args.trace else ()),
        trace=absolute(args.trace),
        began=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    return spec, settings


def resume_spec(args: argparse.Namespace, spec: Spec) -> Spec:
    """Return what a resumed run is to measure: what it began with, and further loads.

    Raises BadConfiguration for an option that can no longer be changed.
    """
    for name in FIXED_OPTIONS:
        if getattr(args, name) is not None:
            option = name.replace("_", "-")
            raise BadConfiguration(
                f"--{option} has no say beside --resume: a run goes on as it began; leave it out"
            )
    return msgspec.structs.replace(spec, loads=tuple(dict.fromkeys([*spec.loads, *read_loads(args)])))


def read_objective(args: argparse.Namespace, spec: Spec) -> Objective:
    """Return what the recommended level has to meet; raises BadConfiguration."""
    rates = [text for text in args.rate or spec.loads if not text.endswith("%")]
    return Objective(
        pool=spec.pool,
        metric=args.objective,
        slo_seconds=read("--slo", parse_duration, args.slo),
        memory_bytes=spec.memory_bytes,
        arrivals_per_second=parse_rate(rates[0], 0.0) if rates else None,
    )


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


def read(option: str, parse: Parser, text: str | None, default: Any = None) -> Any:
    """Return an option's value, or the default where it was not given; raises BadConfiguration."""
    return checked(parse, option, text, ON_THE_LINE) if text else default


def read_numbers(option: str, text: str | None, parse: Parser) -> tuple[int, ...]:
    """Return numbers separated by commas, in ascending order, each once; raises BadConfiguration."""
    words = [word.strip() for word in text.split(",")] if text else []
    return tuple(sorted({checked(parse, option, word, ON_THE_LINE) for word in words}))


def read_loads(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the loads that were named; raises BadConfiguration."""
    return tuple(checked(check_load, "--rate", text, ON_THE_LINE) for text in args.rate)


def check_load(value: Any) -> str:
    """Return a load as it was given; raises NotAllowed."""
    try:
        parse_rate(str(value), 1.0)
    except ValueError:
        raise NotAllowed("a rate such as 2/s, 30/min or 100/h, or a share such as 85%") from None
    return str(value)


def absolute(path: str | None) -> str | None:
    """Return a file's absolute path, so that a run can be resumed from another folder."""
    return str(Path(path).absolute()) if path else None
