"""conf/kubernetes: valid by Kubernetes' own schemas (kubernetes-validate has them), and right for Recyclery."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from recyclery.cli.parser import build_parser
from recyclery.config.sources import CommandLine, load_settings

FOLDER = Path(__file__).parents[2] / "conf" / "kubernetes"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
VERSIONS = ("1.28", "1.31", "1.34")
ROOM_SECONDS = 5


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.stem)
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(request.param.read_text())
    return document


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def environment_of(pod: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"] if "value" in entry}


def test_there_is_a_manifest_for_each_pool_of_the_guide() -> None:
    assert [path.stem for path in MANIFESTS] == ["worker-fast", "worker-slow"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_would_take_it(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_would_be_seen(manifest: dict[str, Any]) -> None:
    pod_of(manifest)["terminationGraceSeconds"] = 40
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_the_variables_give_the_pool_of_that_name(manifest: dict[str, Any]) -> None:
    (pool,) = load_settings(CommandLine(), environment_of(pod_of(manifest))).pools
    assert manifest["metadata"]["name"] == f"worker-{pool.name}"
    assert (pool,) == load_settings(CommandLine(pools=(pool.name,)), {"CELERY_APP": "app"}).pools


def test_the_pod_may_stop_for_longer_than_its_tasks(manifest: dict[str, Any]) -> None:
    pod = pod_of(manifest)
    grace_seconds = load_settings(CommandLine(), environment_of(pod)).grace_seconds
    assert pod["terminationGracePeriodSeconds"] >= grace_seconds + ROOM_SECONDS


def test_the_probes_are_commands_that_recyclery_has(manifest: dict[str, Any]) -> None:
    container = pod_of(manifest)["containers"][0]
    probes = [
        container[name]["exec"]["command"] for name in ("startupProbe", "readinessProbe", "livenessProbe")
    ]
    assert probes == [["recyclery", "health"]] * 3
    build_parser().parse_args(probes[0][1:])


def test_what_is_written_to_lies_on_volumes(manifest: dict[str, Any]) -> None:
    pod = pod_of(manifest)
    container = pod["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
        "/tmp",
        "/run",
        "/var/lib/recyclery",
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
