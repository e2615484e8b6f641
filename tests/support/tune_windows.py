"""What `recyclery tune` is asked for, and windows as it measures them."""

import msgspec

from recyclery.tune.spec import Level, Spec
from recyclery.tune.window import Window

MIB = 1 << 20


def window(
    concurrency: int,
    done: int = 10,
    *,
    peak_mib: int = 300,
    child_mib: int = 100,
    stopped: str = "",
    repeat: int = 0,
) -> Window:
    """Return a window of ten seconds with tasks of two."""
    return Window(
        level=Level(concurrency, 10),
        repeat=repeat,
        seconds=10.0,
        waited_seconds=(0.0,) * done,
        ran_seconds=(2.0,) * done,
        errors=0,
        base_floor_bytes=200 * MIB,
        peak_floor_bytes=peak_mib * MIB,
        limit_bytes=1024 * MIB,
        child_peak_bytes=(child_mib * MIB,),
        recycles=(),
        oom_kills=0,
        cpu_seconds=1.0,
        cores=2.0,
        stopped=stopped,
    )


def asked(**changes: object) -> Spec:
    """Return what a tuning of five levels was asked for, with changes."""
    return msgspec.structs.replace(
        Spec(
            app="app",
            config=None,
            pool="slow",
            task="app.task",
            args=None,
            generate=None,
            concurrencies=(1, 2, 4, 8, 16),
            asked_for=True,
            max_tasks=(10,),
            repeats=4,
            most_repeats=4,
            seed=7,
            least_seconds=10.0,
            most_seconds=300.0,
            memory_bytes=None,
        ),
        **changes,
    )
