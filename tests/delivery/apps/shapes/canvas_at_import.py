"""Chains, groups and chords are put together at import."""

from celery import Celery, chain, chord, group

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


twice = work.si("/dev/null", 0)
workflow = chain(twice, group(twice, twice), chord([twice, twice], twice))
