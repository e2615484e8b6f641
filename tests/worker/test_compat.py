"""The table of private names has all that the package uses, and the installed Celery has all of them."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from celery import Celery
from kombu.transport import redis
from kombu.transport.virtual.base import Message

import recyclery_worker
from recyclery_worker import compat
from recyclery_worker.delivery.lease import set_up
from recyclery_worker.parking.admission import why_not_parked

PACKAGE = Path(recyclery_worker.__file__).parent
SOURCES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
NAMED = {
    name.removesuffix("()")
    for owners in compat.FEATURES.values()
    for names in owners.values()
    for name in names.split()
} | set(compat.OPTIONAL)
# Our own mark on billiard's process object, and names of the standard library.
OTHERS = {"_recyclery", "_exit", "_replace"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_classes() -> dict[str, type]:
    """Return all classes of the package by name."""
    found = {}
    for path, tree in SOURCES.items():
        if path.name == "memray_tracer.py":
            continue
        dotted = ".".join(["recyclery_worker", *path.relative_to(PACKAGE).with_suffix("").parts])
        module = importlib.import_module(dotted.removesuffix(".__init__"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = getattr(module, node.name)
    return found


def foreign_names(kind: type) -> frozenset[str]:
    """Return the names that the foreign bases of a class of ours have or use."""
    # A mixin is put before kombu's channel; its own bases do not say so.
    bases = [*kind.__mro__, *(redis.Channel.__mro__ if kind.__name__ == "AtomicReceive" else ())]
    return frozenset(
        name
        for base in bases
        if not base.__module__.startswith(("recyclery_worker", "builtins", "typing", "abc", "msgspec"))
        for name in (*vars(base), *compat.names_in(base))
    )


def names_of_others(tree: ast.AST, known: frozenset[str], classes: dict[str, type]) -> Iterator[str]:
    """Yield the private names that a part of the code uses of objects that are not its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            if owner not in {"self", *classes} or node.attr in known:
                yield node.attr
        elif isinstance(node, ast.FunctionDef) and is_private(node.name) and node.name in known:
            yield node.name
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"getattr", "setattr", "hasattr"}
            and isinstance(node.args[1], ast.Constant)
            and is_private(str(node.args[1].value))
        ):
            yield str(node.args[1].value)


def patched_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that are set on what is imported from elsewhere."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("recyclery_worker")
        for alias in node.names
    }
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Attribute) and ast.unparse(target).partition(".")[0] in imported:
                yield target.attr


def test_every_private_name_that_the_package_uses_is_in_the_table() -> None:
    classes = own_classes()
    used: dict[str, str] = {}
    for path, tree in SOURCES.items():
        for node in tree.body:
            kind = classes.get(node.name) if isinstance(node, ast.ClassDef) else None
            known = foreign_names(kind) if kind is not None else frozenset()
            used |= dict.fromkeys(names_of_others(node, known, classes), path.name)
        used |= dict.fromkeys(patched_names(tree), path.name)
    assert {name: place for name, place in used.items() if name not in NAMED | OTHERS} == {}


def test_every_name_in_the_table_is_used() -> None:
    code = "\n".join(ast.unparse(tree) for path, tree in SOURCES.items() if path.name != "compat.py")
    assert {name for name in NAMED if name not in code} == set()


@pytest.mark.parametrize("feature", get_args(compat.Feature))
def test_the_installed_celery_has_every_name_of_a_feature(feature: compat.Feature) -> None:
    assert compat.missing(feature) == ()
    assert len(compat.found(feature)) == sum(len(names.split()) for names in compat.FEATURES[feature].values())


def test_a_field_is_found_in_the_code_that_sets_it() -> None:
    assert "_raw" in compat.names_in(Message)
    assert "_cooked" not in compat.names_in(Message)
    assert inspect.isclass(Message)


@pytest.fixture
def without_restoring(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A kombu whose next release gave a method another name."""
    monkeypatch.delattr(redis.Channel, "_q_for_pri")
    yield
    monkeypatch.undo()


@pytest.mark.usefixtures("without_restoring")
def test_without_a_name_a_worker_keeps_no_lease_and_parks_nothing_and_says_so() -> None:
    app = Celery(broker="redis://127.0.0.1:1/0")
    assert "lacks Channel._q_for_pri: this worker keeps no lease" in set_up(app, "slow@here")
    assert "unacked_key" not in app.conf.broker_transport_options
    assert why_not_parked(app, "redis").endswith("lacks Channel._q_for_pri")
    assert compat.missing("receive") == ("Channel._q_for_pri",)
