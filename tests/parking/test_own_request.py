"""An app that raises as a message is handled: one message is parked for it, never a whole queue."""

from recyclery_worker.parking.records import DeadLetterStore
from support.bare_worker import bare_worker
from support.redis_server import count_held
from support.sending import sending_to


def test_where_an_app_raises_at_every_message_its_worker_ends_as_with_celery_alone_and_nothing_is_parked(
    fresh_redis: str, lot: DeadLetterStore
) -> None:
    with sending_to(fresh_redis) as app:
        with bare_worker(fresh_redis, app="own_request_app", environment={"RAISES": "all"}) as broken:
            sent = [app.send_task("own_request_app.echo", (word,), queue="low") for word in "abcdefgh"]
            assert broken.process.wait(60) == 1
        assert lot.list_parked() == []
        with bare_worker(fresh_redis, app="own_request_app"):
            assert sorted(each.get(timeout=30) for each in sent) == [*"abcdefgh"]


def test_an_ordinary_message_at_which_an_app_raises_is_parked_where_others_pass(
    fresh_redis: str, lot: DeadLetterStore
) -> None:
    with sending_to(fresh_redis) as app, bare_worker(fresh_redis, app="own_request_app") as worker:
        for number in range(4):
            app.send_task("own_request_app.echo", (f"odd {number}",), queue="low")
            assert app.send_task("own_request_app.echo", ("a",), queue="low").get(timeout=30) == "a"
        assert [task.reason[:22] for task in lot.list_parked()] == ["LookupError: no tenant"] * 4
        assert worker.process.poll() is None


def test_where_an_app_raises_at_every_task_as_it_begins_later_its_worker_ends_and_nothing_is_parked(
    fresh_redis: str, lot: DeadLetterStore
) -> None:
    with sending_to(fresh_redis) as app:
        with bare_worker(fresh_redis, app="own_request_app", environment={"RAISES": "late"}) as broken:
            for word in "abcdef":
                app.send_task("own_request_app.echo", (word,), queue="low", countdown=1)
            assert broken.process.wait(60) == 1
        assert lot.list_parked() == []
        assert (count_held(lot.client), lot.client.llen("low")) == (0, 6)
