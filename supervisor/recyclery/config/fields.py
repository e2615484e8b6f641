"""How a field of settings.py declares a setting, and how its values are parsed.

A setting is declared once: `name: Annotated[TYPE, setting(HELP, LEAST, MOST, ...)] = DEFAULT`. The last word of
a number's name is its unit. One parser takes text, as the environment has, and TOML values.
"""

import contextlib
import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from recyclery.common.units import MIB, format_bytes, parse_size

# Returns the typed value of text or of a TOML value, or raises NotAllowed.
Parser: TypeAlias = Callable[[Any], Any]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
# No space, comma or percent sign: names become part of a command and of supervisord's configuration.
QUEUE_NAME = re.compile(r"[A-Za-z0-9_.:@/{}-]{1,200}")
# As `@app.task(name=...)` may give it; `*` stands for all that are not named.
TASK_NAME = re.compile(r"[^\s*]{1,255}|\*")
# The sign of a unit, which may follow a number.
SIGNS = {"seconds": "s", "percent": "%", "hours": "h", "days": "d"}
# Options of `celery worker` that would override the supervisor's, by the setting to use instead.
OWN_OPTIONS = {
    "`app`": ("-A", "--app"),
    "the app's broker_url": ("-b", "--broker"),
    "`implementation`": ("-P", "--pool"),
    "`queues`": ("-Q", "--queues"),
    "the pool's name": ("-n", "--hostname"),
    "`concurrency`": ("-c", "--concurrency", "--autoscale"),
    "`max_tasks_per_child`": ("--max-tasks-per-child",),
    "`log_level`": ("-l", "--loglevel"),
    "nothing: a detached worker cannot be supervised": ("-D", "--detach"),
}


class BadConfiguration(Exception):
    """A setting that cannot be used; the message names it, its value, its source and what is allowed."""


class NotAllowed(Exception):
    """The value is not allowed; the message says what is."""


@dataclass(frozen=True)
class Setting:
    """A setting, as its field declares it."""

    name: str
    description: str
    default: Any
    """NODEFAULT for a required setting."""
    parse: Parser
    live: bool = False
    """Whether it can be changed while the supervisor runs."""
    env: str | tuple[str, ...] = ()
    """Its environment variable; of several the first that is set counts."""
    flag: str = ""
    """Its option of `recyclery run` with the metavar: `--grace SECONDS`."""
    none: str = ""
    """The text that means None, where that is a value."""

    @property
    def option(self) -> str:
        """The name of its option; empty where it has none."""
        return self.flag.partition(" ")[0]

    def describe(self) -> str:
        """Return its description with its default, for --help."""
        if self.default in (NODEFAULT, ()):
            return self.description
        text = self.none if self.default is None else str(self.default).lower().removesuffix(".0")
        if isinstance(self.default, int) and self.name.endswith("_bytes"):
            text = format_bytes(self.default)
        return f"{self.description} ({text})"


def setting(description: str = "", least: float | None = None, most: float | None = None, **extra: Any) -> Meta:
    """Declare a setting; `extra` are fields of Setting. One without a description is set by another one."""
    return Meta(ge=least, le=most, description=description, extra=extra)


# Declares a setting that can be changed while the supervisor runs.
live = functools.partial(setting, live=True)


@functools.cache
def declared(table: type[Struct]) -> Mapping[str, Setting]:
    """Return the settings that a table declares by name, also those without a description."""
    found = {}
    for field in msgspec.structs.fields(table):
        kind, *metas = get_args(field.type) or (field.type,)
        if metas and isinstance(meta := metas[0], Meta):
            extra = dict(meta.extra or {})
            parse = extra.pop("parse", None) or plain_parser(field.name, kind, meta)
            if word := extra.get("none"):
                parse = or_none(word, parse)
            found[field.name] = Setting(field.name, meta.description or "", field.default, parse, **extra)
    return found


@functools.cache
def settings_of(table: type[Struct]) -> Mapping[str, Setting]:
    """Return the settings of a table that have a description, by name."""
    return {name: each for name, each in declared(table).items() if each.description}


def checked(parse: Parser, name: str, value: Any, source: str) -> Any:
    """Return the parsed value; raises BadConfiguration."""
    try:
        return parse(value)
    except NotAllowed as error:
        raise BadConfiguration(f"{name} is {value!r} ({source}): it must be {error}") from None


def load_toml(text: str) -> dict[str, Any]:
    """Return a TOML document; raises ValueError, and RecursionError where it is nested too deeply."""
    # Imported lazily: the governor needs it only for `recyclery set`.
    import tomllib  # noqa: PLC0415

    document = tomllib.loads(text)
    # TOML's hexadecimal integers may have more digits than Python prints: a message could not show one.
    repr(document)
    return document


def plain_parser(name: str, kind: Any, meta: Meta) -> Parser:
    """Return the parser of a setting whose type needs no special one."""
    least: Any = meta.ge
    most: Any = meta.le
    unit = name.rpartition("_")[2]
    if get_origin(kind) is Literal:
        return one_of(*get_args(kind))
    if kind is bool:
        return parse_bool
    if kind is float:
        return number_of(unit, least, most)
    if kind is int:
        return size_of_at_least(least) if unit == "bytes" else whole_number(least, most)
    raise TypeError(f"{name} is of type {kind}, which needs a parser of its own")


def whole_number(least: int, most: int) -> Parser:
    """Return a parser of a whole number from `least` to `most`."""
    return in_range(lambda value: int(str(value)), least, most, f"a whole number from {least} to {most}")


def number_of(unit: str, least: float, most: float) -> Parser:
    """Return a parser of a number from `least` to `most` of a unit, whose sign may follow it."""
    allowed = f"a number of {unit} from {least:g} to {most:g}"
    return in_range(lambda value: float(str(value).strip().removesuffix(SIGNS[unit])), least, most, allowed)


def size_of_at_least(least_bytes: int) -> Parser:
    """Return a parser of a size in bytes: a number, or text as `768MiB`, `1G`; units are powers of 1024."""
    allowed = f"a size of at least {least_bytes >> 20}MiB, such as 768MiB or 1GiB"
    return in_range(lambda value: parse_size(str(value)), least_bytes, math.inf, allowed)


def in_range(read: Callable[[Any], float], least: float, most: float, allowed: str) -> Parser:
    """Return a parser of a number in a range; `read` converts the value or raises ValueError."""

    def parse(value: Any) -> float:
        with contextlib.suppress(ValueError):
            if least <= (number := read(value)) <= most:
                return number
        raise NotAllowed(allowed)

    return parse


def one_of(*choices: str) -> Parser:
    """Return a parser of one of several words."""
    return text_like("|".join(choices), f"one of {', '.join(choices)}")


def or_none(word: str, parse: Parser) -> Parser:
    """Return a parser that also takes a word for None."""

    def parse_or_none(value: Any) -> Any:
        try:
            return None if value == word else parse(value)
        except NotAllowed as error:
            raise NotAllowed(f"{error}, or {word}") from None

    return parse_or_none


def parse_bool(value: Any) -> bool:
    """Return a TOML boolean."""
    if not isinstance(value, bool):
        raise NotAllowed("true or false")
    return value


def parse_log_level(value: Any) -> Any:
    """Return a log level's name in lower case."""
    return one_of(*LOG_LEVELS)(value.lower() if isinstance(value, str) else value)


def text_like(pattern: str, allowed: str) -> Parser:
    """Return a parser of text that matches a pattern."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise NotAllowed(allowed)
        return value

    return parse


# As `celery -A` takes it.
parse_app_name = text_like(
    r"[A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?",
    "a module's dotted name, such as app.infrastructure.celery or proj:app",
)
# It becomes part of node, process and file names.
parse_pool_name = text_like(
    r"(?!governor\Z)[a-z0-9](?:[a-z0-9_-]{0,29}[a-z0-9])?",
    "a name of a-z, 0-9, _ and -, at most 31 long, other than `governor`",
)


def parse_queues(value: Any) -> tuple[str, ...]:
    """Return queue names from a list, or from text with commas."""
    names = value.split(",") if isinstance(value, str) else value
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        stripped = tuple(name.strip() for name in names)
        if stripped and all(map(QUEUE_NAME.fullmatch, stripped)) and len(set(stripped)) == len(stripped):
            return stripped
    raise NotAllowed("one or more queue names, separated by commas, each once")


def parse_concurrency(value: Any) -> tuple[int, int | None]:
    """Return (least, most): from a number, which has no most, or from a table with `min` and `max`."""
    concurrency = whole_number(1, 1000)
    if not isinstance(value, dict):
        return concurrency(value), None
    allowed = "a whole number from 1 to 1000, or { min = 1, max = 4 }"
    if value.keys() != {"min", "max"}:
        raise NotAllowed(allowed)
    least, most = concurrency(value["min"]), concurrency(value["max"])
    if least > most:
        raise NotAllowed(f"{allowed}, the min not above the max")
    return least, most


def parse_celery_options(value: Any) -> tuple[str, ...]:
    """Return further options for `celery worker`, from a list with one word each."""
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise NotAllowed('a list of words, such as ["-E", "--time-limit=300"]')
    for word in value:
        # click takes a short option's value in the same word: -c4.
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if instead := next((instead for instead, names in OWN_OPTIONS.items() if name in names), None):
            raise NotAllowed(f"without {name}: set {instead}")
    return tuple(value)


def parse_seconds_by_queue(value: Any) -> dict[str, float]:
    """Return seconds by queue, from a table."""
    seconds = number_of("seconds", 0, 86_400)
    with contextlib.suppress(NotAllowed):
        if isinstance(value, dict) and all(map(QUEUE_NAME.fullmatch, value)):
            return {queue: seconds(number) for queue, number in value.items()}
    raise NotAllowed(
        "a table of queues with numbers of seconds from 0 to 86400, such as { high = 10, default = 300 }"
    )


def parse_bytes_by_task(value: Any) -> dict[str, int]:
    """Return sizes by task name: from one size for all (`*`), or from a table."""
    size = size_of_at_least(MIB)
    if not isinstance(value, dict):
        return {"*": size(value)}
    with contextlib.suppress(NotAllowed):
        if value and all(map(TASK_NAME.fullmatch, value)):
            return {task: size(amount) for task, amount in value.items()}
    example = '{ "shop.scrape" = "1GiB", "*" = "300MiB" }'
    raise NotAllowed(f"a size of at least 1MiB, or a table of task names with sizes, such as {example}")
