"""Which task goes to which queue, and how long it may take there."""

from kombu import Exchange, Queue

TASKS = "app.infrastructure.celery.tasks"
TASK_MODULES = [f"{TASKS}.{name}" for name in ("notifications", "calendar", "memory", "sii", "storm")]

# Each queue has its own exchange and key; sharing the default ones would copy a task to all queues.
QUEUES = tuple(Queue(name, Exchange(name), routing_key=name) for name in ("high", "default", "low"))

_QUEUE_BY_TASK = {
    f"{TASKS}.notifications.process_pending": "high",
    f"{TASKS}.calendar.sync_calendar": "default",
    f"{TASKS}.memory.compact_memory": "default",
    f"{TASKS}.sii.sync_documents": "low",
    f"{TASKS}.storm.ping": "high",
    f"{TASKS}.storm.scrape": "low",
}
ROUTES = {task: {"queue": queue} for task, queue in _QUEUE_BY_TASK.items()}

LOW_SOFT_LIMIT_SECONDS = 50
LOW_HARD_LIMIT_SECONDS = 60
ANNOTATIONS = {
    task: {"soft_time_limit": LOW_SOFT_LIMIT_SECONDS, "time_limit": LOW_HARD_LIMIT_SECONDS}
    for task, queue in _QUEUE_BY_TASK.items()
    if queue == "low"
}
