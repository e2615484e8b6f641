"""The assistant's memory: old messages of a conversation become a summary."""

import re
from collections import Counter
from typing import cast

from redis.client import Pipeline

from app.infrastructure.celery import app
from app.infrastructure.redis_client import redis_client

MESSAGES_PREFIX = "backoffice:memory:messages:"
SUMMARY_PREFIX = "backoffice:memory:summary:"
MESSAGES_KEPT = 20
_WORD = re.compile(r"\w{4,}")


@app.task
def compact_memory() -> int:
    """Shorten every conversation to its last 20 messages, and return how many messages went.

    What went stays as word counts in the conversation's summary, a sorted set.
    """
    client = redis_client()
    keys = cast(list[str], list(client.scan_iter(f"{MESSAGES_PREFIX}*")))
    return sum(_compact(key) for key in keys)


def _compact(key: str) -> int:
    summary_key = SUMMARY_PREFIX + key.removeprefix(MESSAGES_PREFIX)

    def shorten(pipeline: Pipeline) -> None:
        old = cast(list[str], pipeline.lrange(key, 0, -MESSAGES_KEPT - 1))
        pipeline.multi()
        pipeline.llen(key)
        for word, count in count_words(old).items():
            pipeline.zincrby(summary_key, count, word)
        pipeline.ltrim(key, -MESSAGES_KEPT, -1)

    # Watched: a message that comes in between makes Redis start this conversation anew.
    length, *_ = cast(list[int], redis_client().transaction(shorten, key))
    return max(0, length - MESSAGES_KEPT)


def count_words(messages: list[str]) -> Counter[str]:
    """Count the words of four letters and more in `messages`, in lower case."""
    return Counter(word for message in messages for word in _WORD.findall(message.lower()))
