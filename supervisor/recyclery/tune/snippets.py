"""An answer as it is written into a configuration."""

from __future__ import annotations

from recyclery.tune.windows import Level


def write_conf(pool: str, level: Level, limit_bytes: int) -> str:
    """Return the lines for recyclery.toml; they replace those of the same names."""
    return "\n".join(
        [
            "[memory]",
            f'limit_bytes = "{format_limit(limit_bytes)}"',
            "",
            f"[pools.{pool}]",
            f"concurrency = {level.concurrency}",
            f"max_tasks_per_child = {level.max_tasks_per_child}",
        ]
    )


def write_environment(level: Level, limit_bytes: int) -> dict[str, str]:
    """Return the variables of the worker's service."""
    return {
        "CELERY_CONCURRENCY": str(level.concurrency),
        "CELERY_MAX_TASKS_PER_CHILD": str(level.max_tasks_per_child),
        "RECYCLERY_MEMORY_LIMIT": format_limit(limit_bytes),
    }


def format_limit(limit_bytes: int) -> str:
    """Return a limit as settings and container engines read it: whole MiB, or GiB where it is that."""
    if limit_bytes % (1 << 30) == 0:
        return f"{limit_bytes >> 30}GiB"
    return f"{limit_bytes >> 20}MiB"
