"""Windows as `recyclery tune` measures them."""

from recyclery.tune.windows import Level, Window

MIB = 1 << 20


def window(
    concurrency: int, done: int = 10, peak_mib: int = 300, child_mib: int = 100, stopped: str = ""
) -> Window:
    """Return a window of ten seconds with tasks of two."""
    return Window(
        level=Level(concurrency, 10),
        repeat=0,
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
