"""Arrivals at a queue in service are seen without taking a task."""

from celery import Celery

from recyclery_worker.broker.connection import connected
from recyclery_worker.delivery.registry import new_generation, open_registry
from recyclery_worker.tuning.arrivals import QueueWatch
from support.tuning import content_of


def test_each_task_that_comes_is_seen_once_wherever_it_is(sender: Celery) -> None:
    generation = new_generation("slow@there")
    with connected(sender, **generation.keys) as worker, connected(sender) as channel:
        open_registry(worker).register(generation)
        sender.send_task("any", queue="low")
        watch = QueueWatch(channel, "low")
        watch.poll()
        assert watch.poll() == 0
        sender.send_task("any", queue="low")
        sender.send_task("any", queue="low", priority=6)
        sender.send_task("any", queue="high")
        assert watch.poll() == 2
        # Sent and taken between two looks, by a worker that holds others too.
        sender.send_task("any", queue="low")
        taken = [worker.basic_get("low"), worker.basic_get("low"), worker.basic_get("high")]
        assert all(taken)
        assert watch.poll() == 1
        assert watch.poll() == 0
        before = content_of(open_registry(channel).client)
        watch.poll()
        assert content_of(open_registry(channel).client) == before
        worker.qos._delivered.clear()


def test_a_queue_that_was_emptied_and_filled_again_is_followed(sender: Celery) -> None:
    with connected(sender) as channel:
        watch = QueueWatch(channel, "low")
        sender.send_task("any", queue="low")
        assert watch.poll() == 1
        channel._purge("low")
        assert watch.poll() == 0
        sender.send_task("any", queue="low")
        sender.send_task("any", queue="low")
        assert watch.poll() == 2
