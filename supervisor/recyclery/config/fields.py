"""The checks of single values: each takes text or a TOML value and returns the typed one, or refuses it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from recyclery.common.units import parse_size
from recyclery.config.settings import Address

LOG_FORMATS = ("text", "json")
ALERT_FORMATS = ("json", "slack", "pagerduty")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
POOL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,29}[a-z0-9])?")
# Never a space, a comma or a percent sign: names end up in a command and in supervisord's configuration.
QUEUE_NAME = re.compile(r"[A-Za-z0-9_.:@/{}-]{1,200}")
HTTP_ADDRESS = re.compile(r"(?:(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]*)):)?(?P<port>[0-9]{1,5})")
APP_NAME = re.compile(r"[A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?")


IMPLEMENTATIONS = ("prefork", "threads", "gevent", "eventlet", "solo")
# Options of `celery worker` that would undo what the supervisor sets, and what to set instead.
OWN_OPTIONS = {
    "-A": "`app`",
    "--app": "`app`",
    "-b": "the app's broker_url",
    "--broker": "the app's broker_url",
    "-P": "`implementation`",
    "--pool": "`implementation`",
    "-Q": "`queues`",
    "--queues": "`queues`",
    "-n": "the pool's name",
    "--hostname": "the pool's name",
    "-c": "`concurrency`",
    "--concurrency": "`concurrency`",
    "--autoscale": "`concurrency`",
    "--max-tasks-per-child": "`max_tasks_per_child`",
    "-l": "`log_level`",
    "--loglevel": "`log_level`",
    "-D": "nothing: a detached worker cannot be supervised",
    "--detach": "nothing: a detached worker cannot be supervised",
}


class Refused(Exception):
    """The value is not allowed; the message says what is."""


Check = Callable[[Any], Any]


def whole_number(least: int, most: int) -> Check:
    """Return a check for a whole number from `least` to `most`."""

    def check(value: Any) -> int:
        allowed = f"a whole number from {least} to {most}"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Refused(allowed)
        try:
            number = int(value)
        except ValueError:
            raise Refused(allowed) from None
        if not least <= number <= most:
            raise Refused(allowed)
        return number

    return check


def number_of(unit: str, sign: str, least: float, most: float) -> Check:
    """Return a check for a number from `least` to `most` of a unit, whose sign may follow it."""

    def check(value: Any) -> float:
        allowed = f"a number of {unit} from {least:g} to {most:g}"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise Refused(allowed)
        try:
            number = float(value.strip().removesuffix(sign)) if isinstance(value, str) else float(value)
        except ValueError:
            raise Refused(allowed) from None
        if not least <= number <= most:
            raise Refused(allowed)
        return number

    return check


def size_of_at_least(least_mib: int, such_as: str) -> Callable[[Any], int]:
    """Return a check for a size in bytes: a number, or text as `768MiB`, `1G`; units are powers of 1024."""

    def check(value: Any) -> int:
        allowed = f"a size of at least {least_mib}MiB, such as {such_as}"
        try:
            number = parse_size(str(value))
        except ValueError:
            raise Refused(allowed) from None
        if number < least_mib << 20:
            raise Refused(allowed)
        return number

    return check


size_bytes = size_of_at_least(64, "768MiB or 1GiB")
history_bytes = size_of_at_least(8, "100MiB or 1GiB")


def size_or_auto(value: Any) -> int | None:
    """Return a size in bytes, or None for `auto`."""
    return None if value == "auto" else size_bytes(value)


def truth(value: Any) -> bool:
    """Return a TOML boolean."""
    if not isinstance(value, bool):
        raise Refused("true or false")
    return value


def log_level(value: Any) -> str:
    """Return a log level's name in lower case."""
    if not isinstance(value, str) or value.lower() not in LOG_LEVELS:
        raise Refused(f"one of {', '.join(LOG_LEVELS)}")
    return value.lower()


def log_format(value: Any) -> str:
    """Return the name of a form for log lines."""
    if value not in LOG_FORMATS:
        raise Refused(f"one of {', '.join(LOG_FORMATS)}")
    return str(value)


def alert_format(value: Any) -> str:
    """Return the name of a form for alerts."""
    if value not in ALERT_FORMATS:
        raise Refused(f"one of {', '.join(ALERT_FORMATS)}")
    return str(value)


def seconds_by_queue(value: Any) -> dict[str, float]:
    """Return seconds by queue, from a table."""
    allowed = "a table of queues with numbers of seconds from 0 to 86400, such as { high = 10, default = 300 }"
    if not isinstance(value, dict) or not all(map(QUEUE_NAME.fullmatch, value)):
        raise Refused(allowed)
    try:
        return {queue: task_seconds(seconds) for queue, seconds in value.items()}
    except Refused:
        raise Refused(allowed) from None


def http_address(value: Any) -> Address | None:
    """Return where to serve HTTP, None for `off`: a port (of every interface), or ADDRESS:PORT."""
    refused = Refused("a port from 1 to 65535, ADDRESS:PORT such as 127.0.0.1:8080 or [::1]:8080, or off")
    if value == "off":
        return None
    found = isinstance(value, int | str) and HTTP_ADDRESS.fullmatch(str(value))
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise refused
    host = found["v6"] or found["host"] or ""
    try:
        is_right = host in {"", "localhost"} or (ipaddress.ip_address(host).version == 6) == bool(found["v6"])
    except ValueError:
        raise refused from None
    if not is_right:
        raise refused
    return Address(host=host, port=int(found["port"]))


def app_name(value: Any) -> str:
    """Return the dotted name of a Celery app, as `celery -A` takes it."""
    if not isinstance(value, str) or not APP_NAME.fullmatch(value):
        raise Refused("a module's dotted name, such as app.infrastructure.celery or proj:app")
    return value


def implementation(value: Any) -> str:
    """Return the name of a pool implementation of Celery's."""
    if value not in IMPLEMENTATIONS:
        raise Refused(f"one of {', '.join(IMPLEMENTATIONS)}")
    return str(value)


def celery_options(value: Any) -> tuple[str, ...]:
    """Return further options for `celery worker`, from a list with one word each."""
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise Refused('a list of words, such as ["-E", "--time-limit=300"]')
    for word in value:
        # click takes a short option's value in the same word: -c4.
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if name in OWN_OPTIONS:
            raise Refused(f"without {name}: set {OWN_OPTIONS[name]}")
    return tuple(value)


def pool_name(value: Any) -> str:
    """Return a pool's name: it becomes part of node, process and file names."""
    if not isinstance(value, str) or not POOL_NAME.fullmatch(value) or value == "governor":
        raise Refused("a name of a-z, 0-9, _ and -, at most 31 long, other than `governor`")
    return value


def queues(value: Any) -> tuple[str, ...]:
    """Return queue names from a list, or from text with commas."""
    allowed = "one or more queue names, separated by commas, each once"
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(allowed)
    stripped = tuple(name.strip() for name in names)
    if not stripped or not all(map(QUEUE_NAME.fullmatch, stripped)) or len(set(stripped)) < len(stripped):
        raise Refused(allowed)
    return stripped


concurrency = whole_number(1, 1000)


def concurrency_range(value: Any) -> tuple[int, int | None]:
    """Return (least, most): from a number, which has no most, or from a table with `min` and `max`."""
    if not isinstance(value, dict):
        return concurrency(value), None
    allowed = "a whole number from 1 to 1000, or { min = 1, max = 4 }"
    if value.keys() != {"min", "max"}:
        raise Refused(allowed)
    least, most = concurrency(value["min"]), concurrency(value["max"])
    if least > most:
        raise Refused(f"{allowed}, the min not above the max")
    return least, most


max_tasks_per_child = whole_number(1, 1_000_000)
max_task_deaths = whole_number(0, 1000)
percent = whole_number(10, 100)
alert_queue_depth = whole_number(0, 1_000_000)
alert_percent = whole_number(0, 100)
alert_restarts = whole_number(0, 1000)
task_seconds = number_of("seconds", "s", 0, 86_400)
lasting_seconds = number_of("seconds", "s", 0, 3600)
window_seconds = number_of("seconds", "s", 10, 3600)
risk_percent = number_of("percent", "%", 0.01, 50)
grace_seconds = number_of("seconds", "s", 1, 3600)
silent_seconds = number_of("seconds", "s", 0, 86_400)
max_age_seconds = number_of("seconds", "s", 1, 604_800)
max_deaths = whole_number(1, 1000)
death_window_seconds = number_of("seconds", "s", 1, 86_400)
watchdog_seconds = number_of("seconds", "s", 5, 3600)
seconds_hours = number_of("hours", "h", 0.1, 720)
kept_days = number_of("days", "d", 0.1, 3650)
drain_seconds = number_of("seconds", "s", 1, 86_400)
