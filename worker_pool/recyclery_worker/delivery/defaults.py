"""The settings that protect tasks from the death of their process, and the tasks that go without."""

from typing import Any
from weakref import WeakKeyDictionary

from celery import Task
from celery.app import defaults
from celery.app.annotations import resolve_all

REQUEUE = "task_reject_on_worker_lost"
# With these a task is acknowledged when it is done, and given back when its process dies before that. A task
# that must not run twice has acks_late=False.
SAFE: dict[str, Any] = {
    "task_acks_late": True,
    REQUEUE: True,
    # A worker that holds more messages than it runs keeps them from others, and has more to give back.
    "worker_prefetch_multiplier": 1,
}
# The fields of a task that take them over when its class is bound, which is at its first use.
FIELDS = {"acks_late": "task_acks_late", "reject_on_worker_lost": REQUEUE}
# The fields that nobody had set when their class was bound, with what they took over.
taken: WeakKeyDictionary[type[Any], dict[str, Any]] = WeakKeyDictionary()
bind: Any = getattr(Task, "bind", None)


def set_defaults() -> None:
    """Make these Celery's defaults in this process, for each app that is imported from now on.

    As with any default, what the app, a task or the command line says counts: `settle_tasks` has it count for
    tasks that were used before the app had said all.
    """
    defaults.DEFAULTS.update(SAFE)
    # An app that names its settings as Celery 3 did has its defaults from here.
    old_name: dict[str, str] = getattr(defaults, "_TO_OLD_KEY", {})
    old_defaults: dict[str, Any] = getattr(defaults, "_OLD_DEFAULTS", {})
    old_defaults.update({old_name[name]: value for name, value in SAFE.items() if name in old_name})
    if bind is not None:
        Task.bind = classmethod(bind_and_note)  # type: ignore[method-assign, assignment]


def set_default(app: Any, name: str, value: Any) -> None:
    """Set what holds in an app that is imported, and says nothing itself."""
    _ = app.conf[name]  # It reads its settings when the first of them is asked for.
    # Its copy of Celery's defaults is the last map, by old names where its own are old.
    own, old_name = app.conf.maps[-1], getattr(defaults, "_TO_OLD_KEY", {}).get(name)
    own[old_name if old_name in own else name] = value


def bind_and_note(task: Any, app: Any) -> Any:
    """Bind a task's class, and note what it takes over."""
    unset = [field for field in FIELDS if getattr(task, field) is None]
    bind.__func__(task, app)
    for field in unset:
        value = app.conf[FIELDS[field]]
        # A class may have its own list of what it takes over.
        if getattr(task, field) is None:
            setattr(task, field, value)
        if getattr(task, field) is value:
            taken.setdefault(task, {})[field] = value
    return app


def settle_tasks(app: Any) -> None:
    """Have what the tasks of an imported app took over be what the app says now."""
    # A list, as an annotation may be code that uses a task.
    for task, fields in list(taken.items()):
        # An app may be a proxy, which is equal to what it stands for.
        if task.app != app:
            continue
        annotated = {field for each in resolve_all(app.annotations, task) for field in each}
        for field, value in fields.items():
            if vars(task).get(field) is value and field not in annotated:
                fields[field] = app.conf[FIELDS[field]]
                setattr(task, field, fields[field])


def list_early_tasks(app: Any) -> tuple[str, ...]:
    """Return the tasks of a settled app that are acknowledged before they run: lost with their process."""
    own = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
    return tuple(sorted(name for name, task in own.items() if not task.acks_late))
