"""Railway's files: only fields it knows, with values of the right kind, and what the guide says of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from recyclery.config.sources import CommandLine, load_settings
from recyclery.health.heartbeat import HeartbeatWriter
from recyclery.http.routes import list_probes

ROOT = Path(__file__).parents[2]
FILES = ("railway.worker-fast.json", "railway.worker-slow.json")

# The part of https://railway.com/railway.schema.json that these files use, after
# https://docs.railway.com/config-as-code/reference. Seconds are numbers: the parser refuses the strings that
# page shows (railwayapp/docs#1243).
BUILD = {"builder": {"DOCKERFILE", "RAILPACK"}, "dockerfilePath": str, "watchPatterns": list}
DEPLOY = {
    "drainingSeconds": int,
    "healthcheckPath": str,
    "healthcheckTimeout": int,
    "overlapSeconds": int,
    "numReplicas": int,
    "restartPolicyMaxRetries": int,
    "restartPolicyType": {"ALWAYS", "NEVER", "ON_FAILURE"},
    "startCommand": str,
}


@pytest.fixture(params=FILES)
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / request.param).read_text())
    return content


def wrong_fields(section: dict[str, Any], known: dict[str, Any]) -> list[str]:
    return [
        name
        for name, value in section.items()
        if not (
            name in known
            and (value in known[name] if isinstance(known[name], set) else isinstance(value, known[name]))
        )
    ]


def test_every_field_is_one_that_railway_knows(document: dict[str, Any]) -> None:
    assert document.keys() == {"$schema", "build", "deploy"}
    assert document["$schema"] == "https://railway.com/railway.schema.json"
    assert wrong_fields(document["build"], BUILD) == []
    assert wrong_fields(document["deploy"], DEPLOY) == []


def test_the_dockerfile_is_there_and_what_it_is_built_from_starts_a_build(document: dict[str, Any]) -> None:
    assert (ROOT / document["build"]["dockerfilePath"]).exists()
    assert document["build"]["dockerfilePath"] in document["build"]["watchPatterns"]


def test_railway_waits_longer_than_recyclery_gives_its_tasks(document: dict[str, Any]) -> None:
    settings = load_settings(CommandLine(), {"CELERY_APP": "app"})
    assert document["deploy"]["drainingSeconds"] >= settings.grace_seconds + 5


def test_a_supervisor_that_ends_badly_is_started_again(document: dict[str, Any]) -> None:
    assert document["deploy"]["restartPolicyType"] == "ALWAYS"


def test_railway_probes_a_path_that_answers_on_the_port_it_names(
    document: dict[str, Any], tmp_path: Path
) -> None:
    assert document["deploy"]["healthcheckPath"] in list_probes(HeartbeatWriter(tmp_path))
    settings = load_settings(CommandLine(), {"CELERY_APP": "app", "PORT": "8080"})
    assert settings.http is not None
    assert (settings.http.host, settings.http.port) == ("", 8080)


def test_no_dockerfile_uses_what_railway_refuses() -> None:
    for name in ("Dockerfile.fast", "Dockerfile.slow"):
        lines = (ROOT / name).read_text().splitlines()
        # Volumes are Railway's own, and cache mounts need an id of the service.
        assert not [line for line in lines if line.startswith("VOLUME") or "--mount=type=cache" in line]


@pytest.mark.parametrize(
    ("name", "queues", "concurrency", "most"), [("fast", "high,default", 3, 100), ("slow", "low", 1, 10)]
)
def test_the_guides_variables_give_the_guides_worker(
    name: str, queues: str, concurrency: int, most: int
) -> None:
    environment = {
        "CELERY_APP": "app.infrastructure.celery",
        "CELERY_QUEUES": queues,
        "CELERY_WORKER_NAME": name,
        "CELERY_CONCURRENCY": str(concurrency),
        "CELERY_MAX_TASKS_PER_CHILD": str(most),
        "CELERY_LOG_LEVEL": "info",
    }
    (pool,) = load_settings(CommandLine(), environment).pools
    assert (pool.name, ",".join(pool.queues)) == (name, queues)
    assert (pool.concurrency, pool.max_tasks_per_child) == (concurrency, most)
