"""The Celery app: `celery -A app.infrastructure.celery worker`."""

from celery import Celery

from app.infrastructure.celery.routing import ANNOTATIONS, QUEUES, ROUTES, TASK_MODULES
from app.infrastructure.celery.schedule import SCHEDULE
from app.settings import broker_url, redis_url

app = Celery("backoffice", broker=broker_url(), backend=redis_url(), include=TASK_MODULES)
app.conf.update(
    task_queues=QUEUES,
    task_default_queue="default",
    task_create_missing_queues=False,
    task_routes=ROUTES,
    task_annotations=ANNOTATIONS,
    # A task whose worker dies goes back to its queue; so every task must bear being run twice.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A worker takes no task it cannot start at once: those behind a slow one stay for the others.
    worker_prefetch_multiplier=1,
    result_expires=3600,
    broker_connection_retry_on_startup=True,
    timezone="America/Santiago",
    beat_schedule=SCHEDULE,
    # Flower shows what still waits, not only what was begun.
    task_send_sent_event=True,
)
