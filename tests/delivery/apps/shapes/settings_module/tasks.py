"""The tasks; one is known to the schedule before the worker's own code runs."""

from delivery.apps.body import run
from delivery.apps.shapes.settings_module import app


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


app.add_periodic_task(3600.0, work.s("/dev/null", 0), name="hourly")
