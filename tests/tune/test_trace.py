"""Arrivals at a queue in service are seen without taking a task."""

from celery import Celery

from recyclery_worker.broker.connection import connected
from recyclery_worker.delivery.registry import new_generation, open_book
from recyclery_worker.tuning.arrivals import Watch
from support.tuning import content_of


def test_each_task_that_comes_is_seen_once_wherever_it_is(sender: Celery) -> None:
    generation = new_generation("slow@there")
    with connected(sender, **generation.keys) as worker, connected(sender) as channel:
        open_book(worker).enter(generation)
        sender.send_task("any", queue="low")
        watch = Watch(channel, "low")
        watch.look()
        assert watch.look() == 0
        sender.send_task("any", queue="low")
        sender.send_task("any", queue="low", priority=6)
        sender.send_task("any", queue="high")
        assert watch.look() == 2
        # Sent and taken between two looks, by a worker that holds others too.
        sender.send_task("any", queue="low")
        taken = [worker.basic_get("low"), worker.basic_get("low"), worker.basic_get("high")]
        assert all(taken)
        assert watch.look() == 1
        assert watch.look() == 0
        before = content_of(open_book(channel).client)
        watch.look()
        assert content_of(open_book(channel).client) == before
        worker.qos._delivered.clear()


def test_a_queue_that_was_emptied_and_filled_again_is_followed(sender: Celery) -> None:
    with connected(sender) as channel:
        watch = Watch(channel, "low")
        sender.send_task("any", queue="low")
        assert watch.look() == 1
        channel._purge("low")
        assert watch.look() == 0
        sender.send_task("any", queue="low")
        sender.send_task("any", queue="low")
        assert watch.look() == 2
