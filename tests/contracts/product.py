"""Everything the contract tests use of the product. After a rename only this file has to change."""

import argparse
import dataclasses
import json
import re
import tempfile
import time
import typing
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs
from redis import Redis

from recyclery.alerts.monitor import AlertTotals, Monitor
from recyclery.alerts.rules import ALERT_KINDS, Alert, Topic
from recyclery.alerts.webhook import build_message
from recyclery.cli.parser import build_parser
from recyclery.common import exit_codes as codes
from recyclery.common.pool_state import PoolState
from recyclery.config.fields import BadConfiguration, settings_of
from recyclery.config.settings import (
    TABLES,
    Address,
    Alerts,
    HistorySettings,
    Pool,
    Settings,
    change_settings,
    follow_file,
    read_settings,
    write_settings,
)
from recyclery.config.sources import CommandLine, load_settings
from recyclery.control.server import Command
from recyclery.control.status_schema import Status, find_status_problems
from recyclery.decide.actions import Action, Outcome, PreemptChild, ReapProcesses
from recyclery.governor.commands import CommandHandlers
from recyclery.health.heartbeat import HeartbeatWriter, find_fault, find_unhealthy_pools
from recyclery.history.reader import open_history
from recyclery.history.recorder import Recorder
from recyclery.history.records import ActionRecord, Parts, PoolSample, RunRecord
from recyclery.history.retention import tidy
from recyclery.history.store import Store, stamp
from recyclery.http.metrics import list_metrics_page, render
from recyclery.http.routes import list_page, list_probes
from recyclery.http.standalone import read_page_file
from recyclery.http.status import build_status
from recyclery.leaks.report import RECYCLES, LeakReport, build_leak_report
from recyclery.leaks.trace_command import Chosen, build_trace_report
from recyclery.observe.snapshot import Owner, Snapshot
from recyclery.pid1.output import FORMATS
from recyclery.pid1.processes import BANNER
from recyclery.state.model_store import ModelStore
from recyclery_worker import link
from recyclery_worker.broker.wait import PROBE
from recyclery_worker.delivery.registry import GENERATIONS, LEASES, Generation, Registry
from recyclery_worker.link import ChildReport, WorkerStat
from recyclery_worker.parking.admission import read_max_deaths
from recyclery_worker.parking.records import PARKED, Parked, in_flight_key, unread_key
from recyclery_worker.tracing.sites import Site, StackFrame, TracedRuns
from recyclery_worker.tuning.cleanup import TUNES, renew
from recyclery_worker.tuning.messages import Space
from support.readings import readings
from support.snapshots import (
    ANSWERED,
    AT,
    CHILD,
    LEARNED,
    MIB,
    SETTINGS,
    board,
    child,
    process,
    slow_view,
    snapshot,
)
from support.statuses import pool, status

ACTIONS: tuple[type[Any], ...] = typing.get_args(Action)
# Values for the fields of actions, by type; a field of any other type is a tuple.
STAND_INS: dict[Any, Any] = {
    str: "x",
    int: 1,
    bool: False,
    str | None: None,
    Owner: CHILD,
    link.DeathReport: None,
}

WORKER = WorkerStat(
    pool="slow",
    pid=10,
    node="slow@host",
    concurrency=1,
    max_tasks_per_child=10,
    retires=True,
    lack="",
    children=[],
    departures=[],
    sent=AT,
)

# Nothing listens there.
WEBHOOK = {"RECYCLERY_ALERT_URL": "http://127.0.0.1:1/"}


def actions() -> list[Any]:
    """Return an action of each class, and a reap for each cause."""
    made = [
        action(**{field.name: STAND_INS.get(field.type, ()) for field in structs.fields(action)})
        for action in ACTIONS
        if action is not ReapProcesses
    ]
    reaps = [ReapProcesses((), "x", cause, CHILD) for cause in ("orphans", "leftovers", "strays", "runaway")]
    return [*made, *reaps]


def kinds_in_reports() -> set[str]:
    """Return the action kinds that the leak report and its page look for."""
    return {*RECYCLES}


def page_script() -> str:
    """Return the JavaScript of the web page."""
    return read_page_file("memory.js")


def record_everything(folder: Path) -> Path:
    """Record every kind of action and a run with every outcome; return the history file."""
    recorder = Recorder(structs.replace(SETTINGS, state_dir=folder))
    done, _died, preempted, killed = children = [CHILD._replace(pid=pid) for pid in (20, 21, 22, 23)]
    for owner in children:
        recorder.record_report(child_report(owner, 0, "task"))
    recorder.record_report(child_report(done, 1, None))
    for moment, living in enumerate([children, [done, preempted, killed], [done, killed], [done]]):
        # In the last snapshot a child is gone and the OOM counter has risen.
        look(recorder, living, at=AT + moment, oom_kills=moment // 3)
        if living == [done, preempted, killed]:
            recorder.record_action(PreemptChild((), "x", preempted), Outcome(True, "x"), snapshot())
    for action in actions():
        recorder.record_action(action, Outcome(True, "x"), snapshot())
    recorder.close()
    return folder / "history.db"


def child_report(owner: Owner, tasks_done: int, task: str | None) -> ChildReport:
    """Return the report that a child sends when its first task starts or ends."""
    return ChildReport(
        pool=owner.pool,
        pid=owner.pid,
        start_ticks=owner.start_ticks,
        tasks_done=tasks_done,
        task_id=task,
        task_name=task,
        first_task_started=80.0,
        last_task_ended=90.0 if tasks_done else None,
        sent=90.0,
        ended={"task": tasks_done} if tasks_done else {},
    )


def look(recorder: Recorder, living: Iterable[Owner], *, at: float, oom_kills: int) -> None:
    """Pass a snapshot with these children to the recorder."""
    seen = snapshot(*(child(owner=owner, task_id="task", task_name="task") for owner in living))
    container = dataclasses.replace(seen.container, oom_kills=oom_kills)
    recorder.record_snapshot(dataclasses.replace(seen, container=container, at=at), LEARNED, SETTINGS)


def sum_up(history: Path) -> None:
    """Run the upkeep of a history: roll up, delete what is too old."""
    store = Store(history)
    tidy(store.connection, HistorySettings(), stamp(time.time()))
    store.close()


def record_runs(history: Path, count: int, kinds: Iterable[str]) -> None:
    """Write runs of one leaking task to a history, and actions of these kinds on its child."""
    store = Store(history)
    for number in range(count):
        before, after = Parts(python=50 * MIB + number * MIB), Parts(python=51 * MIB + number * MIB)
        ended = 100.0 + number
        store.write([RunRecord(CHILD, {"task": 1}, number, ended, 0.5, before, after, after, True, "done")])
    store.write([ActionRecord(500.0, kind, "slow", CHILD, "task", "", "", True, 0, 0) for kind in kinds])
    store.close()


def record_late_pool(history: Path) -> None:
    """Write the first sample of a new pool to a history, and an action without a task."""
    store, at = Store(history), time.time() - 60
    store.write([PoolSample(at, "late", MIB, MIB, 1, MIB, 10)])
    store.write([ActionRecord(at, "replace", "late", None, None, "", "", True, 0, 0)])
    store.close()


def report_on(history: Path) -> LeakReport:
    """Return the leak report of a history."""
    with open_history(history) as opened:
        return build_leak_report(opened, history, 0, 1000.0)


def status_documents() -> list[Any]:
    """Return status documents: with a successor, with a draining worker, and without any worker."""
    busy = child(process(30, mib=200), task_id="1", task_name="sync", task_started=AT - 12)
    beside = child(owner=CHILD._replace(pid=21), slot="slow-b", task_id="2", task_name="sync")
    view = slow_view(vitals=ANSWERED, queue_depth=4)
    other = dataclasses.replace(view, slot="slow-b", pid=11)
    named = dataclasses.replace(other, node="slow-b@host")
    leaving = dataclasses.replace(other, state=PoolState.DRAINING)
    named_leaving = dataclasses.replace(named, state=PoolState.DRAINING)
    return [
        build_document(snapshot(busy, beside, pools=(view,), others=(other,)), {"slow": WORKER}),
        build_document(snapshot(pools=(view,), others=(named,)), {}),
        build_document(snapshot(pools=(view,), others=(named_leaving,)), {}),
        build_document(snapshot(child(), beside, pools=(view,), others=(leaving,)), {}),
        build_document(snapshot(), {}),
    ]


def build_document(seen: Snapshot, stats: dict[str, WorkerStat]) -> Any:
    """Return the status document of a snapshot, as decoded JSON."""
    known = board()
    state = known.ledger.state
    known.ledger.state = dataclasses.replace(state, counters=state.counters.with_recycle("slow", "replace"))
    known.events.add(AT - 60, "retire slow/20: why")
    status = build_status(dataclasses.replace(known, worker_stats=stats), seen, lambda _: MIB)
    return json.loads(msgspec.json.encode(status))


def trace_documents() -> list[Any]:
    """Return `recyclery leaks --trace TASK --json` documents, for a task with and without a history."""
    site = Site(frames=[StackFrame("a.py", 1, "f")], bytes_per_run=1.5, count_per_run=1.5, grew_in=5)
    runs = TracedRuns(
        pid=20, tool="memray", warm_up_seconds=[1.5], seconds=[1.5], judged=1, sites=[site], over=True
    )
    reports = [
        build_trace_report(Chosen("slow", "task", usual_seconds), runs, "") for usual_seconds in (None, 1.5)
    ]
    return [json.loads(msgspec.json.encode(report)) for report in reports]


def alert_messages(form: str) -> list[Any]:
    """Return the webhook messages of an alert in one format: firing and resolved."""
    alerts = [Alert(Topic("parked", ""), firing, "text") for firing in (True, False)]
    return [build_message(alert, form, "host", "key", datetime.now(UTC)) for alert in alerts]


def metrics_text() -> str:
    """Return the text of /metrics with every metric present."""
    seen = readings()
    container = dataclasses.replace(seen.snapshot.container, pressure_percent=12.5)
    known = dataclasses.replace(seen.snapshot, container=container)
    return render(dataclasses.replace(seen, snapshot=known, alerts_firing=dict.fromkeys(ALERT_KINDS, 0)))


def rewrite_models(path: Path) -> Path:
    """Load models.json and store it again."""
    store = ModelStore(path)
    store.store(AT)
    return path


def rewrite_settings(path: Path) -> Path:
    """Load settings.json and write it to another folder; return the new file."""
    settings = read_settings(path.parent)
    elsewhere = path.parent / "written"
    elsewhere.mkdir()
    write_settings(structs.replace(settings, runtime_dir=elsewhere))
    written = elsewhere / path.name
    written.write_text(written.read_text().replace(str(elsewhere), str(settings.runtime_dir)))
    return written


def workers_max_deaths() -> int:
    """Return max_task_deaths as a worker in this environment reads it."""
    return read_max_deaths()


def fire_alerts(folder: Path) -> Path:
    """Fire alerts for a parked task and a deep queue; return the file that lists them."""
    alerts, slow = Alerts(lasting_seconds=0.0), SETTINGS.pools[1:]
    settings = structs.replace(SETTINGS, pools=slow, runtime_dir=folder, alerts=alerts)
    counts = AlertTotals(at=AT, tasks={}, restarts={}, oom_kills=0, parked=1)
    seen = snapshot(pools=(slow_view(vitals=ANSWERED),))
    Monitor(settings, WEBHOOK).evaluate(settings, seen, counts, {"slow": 12})
    return folder / "alerts.json"


def remembered_alerts(folder: Path) -> Mapping[str, int]:
    """Return the number of firing alerts of each kind that a restarted governor loads."""
    return Monitor(structs.replace(SETTINGS, runtime_dir=folder), WEBHOOK).count_firing()


def beat(folder: Path, states: Mapping[str, str]) -> Path:
    """Write one heartbeat; return its file."""
    HeartbeatWriter(folder).beat(states)
    return folder / "heartbeat.json"


def health_fault(heartbeat: Path, now: float) -> str | None:
    """Return the fault that `recyclery health` reports, None if there is none."""
    return find_fault(heartbeat, now)


LINK_MESSAGES: dict[str, tuple[Any, ...]] = {
    "report": typing.get_args(link.Report),
    "request": typing.get_args(link.Request),
    "reply": typing.get_args(link.Reply),
}
CONTROL_REQUEST = Command
STATUS_ANSWER = Status
PARKED_FAILURE = Parked
BAD_CONFIGURATION: type[Exception] = BadConfiguration


def link_constants() -> dict[str, object]:
    """Return the constants that worker and governor share."""
    folder = Path()
    return {
        "version": link.LINK_VERSION,
        "largest packet": link.MAX_PACKET_BYTES,
        "signal to collect browsers": link.COLLECT_SIGNAL.name,
        "governor's socket": link.governor_socket(folder),
        "worker's socket": link.worker_socket(folder, "SLOT"),
        "seconds bounds": link.SECONDS_BOUNDS,
    }


def decode_link(kind: str, packet: bytes) -> Any:
    """Decode a packet."""
    return {"report": link.decode_report, "request": link.decode_request, "reply": link.decode_reply}[kind](
        packet
    )


def control_answers() -> dict[str, tuple[Any, ...]]:
    """Return the types of answer to each command of the control socket."""
    nobody = typing.cast(Any, None)
    handlers = CommandHandlers(nobody).handlers()
    answers = {name: typing.get_type_hints(handler)["return"] for name, handler in handlers.items()}
    return {name: typing.get_args(answer) or (answer,) for name, answer in answers.items()}


def http_paths() -> list[str]:
    """Return the method and path of every HTTP endpoint, except the static files of the page."""
    nobody = typing.cast(Any, None)
    pages, forms = list_page(nobody, Path(), Address(host="127.0.0.1", port=9100), "token")
    read = {**list_probes(nobody), **list_metrics_page(nobody, nobody), **pages}
    shown = [path for path in read if not path.startswith("/files/")]
    return [*(f"GET {path}" for path in shown), *(f"POST {path}" for path in forms)]


def command_line() -> argparse.ArgumentParser:
    """Return the argument parser of `recyclery`."""
    return build_parser()


def exit_codes() -> dict[str, int]:
    """Return the exit codes of `recyclery run` by their meaning."""
    return {
        "stopped and drained": codes.DRAINED,
        "something had to be killed": codes.KILLED,
        "wrong usage": codes.WRONG_USAGE,
        "a pool gave up": codes.GAVE_UP,
        "bad configuration": codes.BAD_CONFIGURATION,
    }


def load_configuration(
    config: Path | None, environment: Mapping[str, str], options: Mapping[str, Any]
) -> Settings:
    """Load the settings from a file, the environment and options of `recyclery run`."""
    given = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    named = {name: given.pop(f"--{name}") for name in ("single", "pools") if f"--{name}" in given}
    line = CommandLine(config=None if config is None else str(config), options=given, **named)
    return load_settings(line, environment)


def setting_keys() -> set[tuple[str, str]]:
    """Return the table ("" at the top level, `pools` for any pool) and key of every setting."""
    tables = {"": Settings, **TABLES, "pools": Pool}
    return {(name, key) for name, table in tables.items() for key in settings_of(table)}


def pool_names(settings: Settings) -> list[str]:
    """Return the names of the configured pools."""
    return [pool.name for pool in settings.pools]


def read_setting(settings: Settings, table: str, key: str) -> Any:
    """Return a value in the form of the file; `table` is a table, a pool's name, or "" for the top level."""
    pool = next((pool for pool in settings.pools if pool.name == table), None)
    value = getattr(pool or (getattr(settings, table) if table else settings), key)
    if pool is not None and key == "concurrency" and pool.concurrency_most is not None:
        return {"min": value, "max": pool.concurrency_most}
    if isinstance(value, Address):
        return str(value)
    if value is None:
        return {"http": "off", "limit_bytes": "auto", "max_task_bytes": "off"}[key]
    return list(value) if isinstance(value, tuple) else value


def change_setting(settings: Settings, table: str, key: str, text: str) -> Settings:
    """Change a setting as `recyclery set TABLE KEY=TEXT` does."""
    return change_settings(settings, table, {key: text})


def reread(running: Settings, fresh: Settings) -> tuple[Settings, list[str]]:
    """Reload as on HUP; return the settings now in force, and the changes that need a restart."""
    settings, _, waiting = follow_file(running, fresh)
    return settings, waiting


def banner(queues: str, name: str) -> list[str]:
    """Return the start banner of a worker."""
    return [
        FORMATS["text"].banner(name, line).decode().removesuffix("\n")
        for line in BANNER.format(queues=queues, name=name).splitlines()
    ]


def format_output(log_format: str, pool: str, line: bytes) -> bytes:
    """Format one line of a worker's output."""
    return FORMATS[log_format].output(pool, line, cut=False)


def redis_keys() -> list[str]:
    """Return the Redis keys that the worker package names as constants."""
    generation = Generation("ID", "", "", 0)
    return [
        *(GENERATIONS, LEASES, *generation.keys.values(), in_flight_key("ID")),
        *(PARKED, unread_key("TAG"), PROBE, TUNES, f"{Space('NAME').prefix}*"),
    ]


def begin_tuning(url: str) -> None:
    """Write the Redis keys of a running `recyclery tune`."""
    space = Space("0" * 12)
    with Redis.from_url(url) as client:
        renew(Registry(client), space)
        client.lpush(f"{space.prefix}{space.queue}", "a message")


def forget_worker_and_tuning(url: str) -> None:
    """Write the Redis keys that a worker and a tuning leave behind when they are killed."""
    with Redis.from_url(url) as client:
        registry, generation = Registry(client), Generation("0" * 16, "slow@host", "slow", 10)
        registry.register(generation)
        client.hset(generation.keys["unacked_key"], "a tag", "a message")
        client.delete(LEASES)
        renew(registry, Space("0" * 12))
        client.zadd(TUNES, {"0" * 12: 0.0})


def judge_state(state: str) -> str:
    """Return how health, metrics, alerts and `top` judge a pool state."""
    seen = snapshot(pools=(slow_view(state=PoolState(state), vitals=ANSWERED),))
    (up,) = re.findall(r'^recyclery_pool_up{pool="slow"} (\d)', render(readings(seen)), re.M)
    with tempfile.TemporaryDirectory() as folder:
        alerts, slow = Alerts(lasting_seconds=0.0), SETTINGS.pools[1:]
        settings = structs.replace(SETTINGS, pools=slow, runtime_dir=Path(folder), alerts=alerts)
        watching = Monitor(settings, WEBHOOK)
        watching.evaluate(settings, seen, AlertTotals(at=AT, tasks={}, restarts={}, oom_kills=0, parked=0), {})
    is_down = watching.count_firing()["pool_down"]
    troubles = find_status_problems(status(pools={"slow": pool("slow", state=PoolState(state))}), 0)
    top = "bad" if any(trouble.bad for trouble in troubles) else "a worry" if troubles else "well"
    healthy = "unhealthy" if find_unhealthy_pools({"slow": state}) else "healthy"
    return f"{state}: {healthy}, recyclery_pool_up {up}, {'alert' if is_down else 'no alert'}, {top}"
