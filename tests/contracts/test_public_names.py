"""What users import and install: names, signatures, fixtures and programs."""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points, metadata
from pathlib import Path

from contracts import product
from contracts.frozen import assert_frozen

PUBLIC = {
    "recyclery": ["__version__"],
    "recyclery_worker": [],
    "recyclery_worker.browser": [
        "browser",
        "find_browser",
        "BrowserMissing",
        "BrowserNotStarted",
        "BrowserPair",
    ],
    "recyclery_worker.pytest_plugin": ["managed_browser", "managed_browser_options"],
}


def describe(module: str, name: str) -> Iterator[str]:
    """Yield a name with its parameters, or an exception with its base classes."""
    found, where = getattr(import_module(module), name), f"{module}.{name}"
    if inspect.isclass(found) and issubclass(found, Exception):
        yield from (f"{where} is a {base.__name__}" for base in found.__mro__[1:-3])
    elif callable(found) and not module.endswith("pytest_plugin"):
        yield where
        for parameter in inspect.signature(found).parameters.values():
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
            # Module names of types differ between Python versions.
            kind = re.sub(r"[\w.]+\.|['\"]", "", inspect.formatannotation(parameter.annotation))
            yield f"{where} takes {parameter.kind.description} {parameter.name}: {kind}{default}"
    else:
        yield where


def test_the_public_modules_have_the_frozen_names_parameters_and_defaults() -> None:
    lines = [line for module, names in PUBLIC.items() for name in names for line in describe(module, name)]
    assert_frozen("public_names", lines)


def test_the_browser_module_exports_exactly_its_public_names() -> None:
    assert {*import_module("recyclery_worker.browser").__all__} == {*PUBLIC["recyclery_worker.browser"]}


def test_the_package_has_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", import_module("recyclery").__version__)


def test_the_worker_package_does_nothing_on_import_without_a_supervisor() -> None:
    script = "import recyclery_worker, sys; print('celery' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env={}, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_distribution_has_the_command_and_the_pytest_plugin() -> None:
    assert [found.name for found in entry_points(group="console_scripts", name="recyclery")] == ["recyclery"]
    (plugin,) = entry_points(group="pytest11", name="recyclery")
    assert {"managed_browser", "managed_browser_options"} <= vars(plugin.load()).keys()


def test_the_package_can_be_run_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recyclery", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"recyclery {import_module('recyclery').__version__}\n"


def test_the_distribution_has_the_extras_that_the_docs_name() -> None:
    assert {"browser", "trace"} <= {*(metadata("recyclery").get_all("Provides-Extra") or [])}


def test_the_exception_of_a_parked_task_has_the_frozen_name() -> None:
    kind = product.PARKED_FAILURE
    assert f"{kind.__module__}.{kind.__qualname__}" == "recyclery_worker.parking.records.Parked"


def test_the_pytest_fixtures_are_available_without_configuration(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text("def test_it(managed_browser, managed_browser_options): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "--setup-plan", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "managed_browser (fixtures used: managed_browser_options)" in done.stdout
