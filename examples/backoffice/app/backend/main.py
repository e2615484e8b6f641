"""The back office over HTTP: send a task, see what became of it, look at the queues."""

from pathlib import Path
from typing import Annotated, Any

from celery import Task
from celery.result import AsyncResult
from fastapi import FastAPI, HTTPException, Request, Response, status
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, Field
from redis import RedisError

from app.backend.overview import NoBroker, read_queues, read_workers
from app.infrastructure.celery import app as celery
from app.infrastructure.celery.tasks.calendar import sync_calendar
from app.infrastructure.celery.tasks.memory import compact_memory
from app.infrastructure.celery.tasks.notifications import process_pending, queue_notification
from app.infrastructure.celery.tasks.sii import sync_documents
from app.infrastructure.celery.tasks.storm import ping, scrape
from app.infrastructure.redis_client import redis_client

api = FastAPI(title="Back office")
# The tasks that need no arguments.
BUTTONS = ("process_pending", "sync_calendar", "compact_memory")

templates = Jinja2Templates(Path(__file__).parent / "templates")


class Sent(BaseModel):
    """A task that was put into its queue."""

    id: str
    task: str


class State(BaseModel):
    """What became of a task; PENDING is also said of one that nobody ever sent."""

    id: str
    state: str
    result: Any = None
    error: str | None = None


class Notification(BaseModel):
    """Something to tell somebody."""

    recipient: str
    text: str


class Session(BaseModel):
    """Whose documents to read, and how many pages of them."""

    session_id: Annotated[str, Field(min_length=1)]
    pages: Annotated[int, Field(ge=1, le=100)] = 2


class Ping(BaseModel):
    """A light task of a run, and when it was sent (time.time())."""

    number: int
    run: str
    sent_at: float


class Scrape(BaseModel):
    """A scraping task of a run, and what it is to leave behind."""

    number: int
    run: str
    forget: bool = False
    leave_bytes: Annotated[int, Field(ge=0)] = 0


@api.post("/notifications", status_code=status.HTTP_202_ACCEPTED)
def notify(notification: Notification) -> Sent:
    """Write a notification and have the pending ones sent."""
    queue_notification(notification.recipient, notification.text)
    return send(process_pending)


@api.post("/tasks/process_pending", status_code=status.HTTP_202_ACCEPTED)
def send_process_pending() -> Sent:
    """High: send the pending notifications."""
    return send(process_pending)


@api.post("/tasks/sync_calendar", status_code=status.HTTP_202_ACCEPTED)
def send_sync_calendar() -> Sent:
    """Default: write the calendar."""
    return send(sync_calendar)


@api.post("/tasks/compact_memory", status_code=status.HTTP_202_ACCEPTED)
def send_compact_memory() -> Sent:
    """Default: shorten the conversations."""
    return send(compact_memory)


@api.post("/tasks/sync_documents", status_code=status.HTTP_202_ACCEPTED)
def send_sync_documents(session: Session) -> Sent:
    """Low: read the documents with a browser."""
    return send(sync_documents, session.session_id, session.pages)


@api.post("/tasks/ping", status_code=status.HTTP_202_ACCEPTED)
def send_ping(wanted: Ping) -> Sent:
    """High: a light task of a leak storm."""
    return send(ping, wanted.number, wanted.run, wanted.sent_at)


@api.post("/tasks/scrape", status_code=status.HTTP_202_ACCEPTED)
def send_scrape(wanted: Scrape) -> Sent:
    """Low: a scraping task of a leak storm."""
    return send(scrape, wanted.number, wanted.run, forget=wanted.forget, leave_bytes=wanted.leave_bytes)


@api.get("/tasks/{task_id}")
def show_task(task_id: str) -> State:
    """Say what became of a task."""
    seen: AsyncResult[Any] = AsyncResult(task_id, app=celery)
    state, outcome = seen.state, seen.result
    if isinstance(outcome, BaseException):
        return State(id=task_id, state=state, error=f"{type(outcome).__name__}: {outcome}")
    return State(id=task_id, state=state, result=outcome)


@api.get("/admin")
def show_admin(request: Request) -> HTMLResponse:
    """The queues, the workers on them, and a button for each task."""
    try:
        seen = {"queues": read_queues(celery), "workers": read_workers(celery), "buttons": BUTTONS}
    except NoBroker as error:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, str(error)) from None
    return templates.TemplateResponse(request, "admin.html", seen)


@api.get("/health")
def show_health() -> Response:
    """200 while Redis answers."""
    try:
        redis_client().ping()
    except RedisError as error:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, f"Redis: {error}") from None
    return Response("ok\n", media_type="text/plain")


def send(task: Task[..., Any], *args: Any, **kwargs: Any) -> Sent:
    """Put a task into its queue."""
    return Sent(id=str(task.delay(*args, **kwargs).id), task=task.name)
