"""Which folder may import which, with no circle and no arrow up; and that a name means one thing.

Every import counts: those of a whole module, of a name, inside a function, and for type checking only.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUPERVISOR = ROOT / "supervisor" / "recyclery"
WORKER = ROOT / "worker_pool" / "recyclery_worker"

# Each folder may import those that its line names. A folder stands below all that name it.
SUPERVISOR_MAY: Mapping[str, str] = {
    "common": "",
    "config": "common",
    "health": "config common",
    "observe": "config common",
    "decide": "observe config common",
    "act": "decide observe config common",
    "history": "decide observe config common",
    "state": "decide observe config common",
    "control": "config common",
    "alerts": "state decide observe config common",
    "http": "alerts state control history decide observe health config common",
    "leaks": "http control history decide config common",
    "sandbox": "observe common",
    "tune": "sandbox http control history decide observe config common",
    "celery_app": "config common",
    "doctor": "celery_app control observe config common",
    "top": "control config common",
    "governor": "http alerts act history state control decide observe health config common",
    "pid1": "health config common",
    "cli": "pid1 top doctor celery_app tune leaks control health config common",
    "__main__": "cli",
}
WORKER_MAY: Mapping[str, str] = {
    "link": "",
    "compat": "",
    "browser_names": "",
    "broker": "compat",
    "tracing": "link",
    "parking": "broker compat link",
    "delivery": "parking broker compat link",
    "pool": "delivery parking tracing compat link browser_names",
    "browser": "pool",
    "control": "pool delivery parking broker link",
    "tuning": "delivery broker compat link",
    "app_check": "browser broker",
    "pytest_plugin": "browser",
    "plugin": "app_check control pool delivery parking broker compat link",
    # The program that a worker is.
    "celery": "plugin tuning delivery link",
}
# What a user's process, or a container at rest, would pay for without using it.
UNUSED = ("h11", "itsdangerous", "urllib.request", "redis", "celery", "selenium")
# Of the standard library, what asks or changes the world.
INPUT_OUTPUT = {
    *("asyncio", "ctypes", "fcntl", "glob", "http", "io", "logging", "multiprocessing", "os", "pathlib"),
    *("random", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile"),
    *("threading", "time", "urllib"),
}
# Defined in several modules, with one meaning in all.
SHARED_NAMES = {"log", "logger", "main", "add_arguments", "BROWSER_DOES_NOT_FIT"}
LOOSE = {
    SUPERVISOR: {"__init__", "__main__"},
    WORKER: {"__init__", "celery", "plugin", "link", "compat", "app_check", "pytest_plugin", "browser_names"},
}


def list_modules(package: Path) -> Iterator[tuple[str, ast.Module]]:
    """Yield the dotted name and the parsed source of every module of a package."""
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        yield name.removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


def list_imports(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a module imports, each name of `from x import y` as x.y."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import that does not name its package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def list_definitions(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def folder_of(name: str) -> str:
    """Return the folder of a module of ours, or the module that stands loose."""
    return name.split(".")[1] if "." in name else ""


def list_arrows(package: Path) -> dict[tuple[str, str], set[str]]:
    """Return the modules that import across folders, by the two folders."""
    arrows: dict[tuple[str, str], set[str]] = {}
    for name, tree in list_modules(package):
        for imported in list_imports(tree):
            ours, there = folder_of(name), folder_of(imported)
            if imported.split(".")[0] == package.name and there not in {ours, "__version__", ""}:
                arrows.setdefault((ours, there), set()).add(name)
    return arrows


@pytest.mark.parametrize(
    ("package", "may"), [(SUPERVISOR, SUPERVISOR_MAY), (WORKER, WORKER_MAY)], ids=["supervisor", "worker"]
)
def test_each_folder_imports_only_those_below_it(package: Path, may: Mapping[str, str]) -> None:
    forbidden = {
        f"{source} -> {target}: {', '.join(sorted(modules))}"
        for (source, target), modules in list_arrows(package).items()
        if target not in may.get(source, "").split()
    }
    assert forbidden == set()


@pytest.mark.parametrize("may", [SUPERVISOR_MAY, WORKER_MAY], ids=["supervisor", "worker"])
def test_the_table_of_layers_has_no_circle(may: Mapping[str, str]) -> None:
    order = tuple(TopologicalSorter({folder: below.split() for folder, below in may.items()}).static_order())
    assert set(order) == set(may)


@pytest.mark.parametrize("package", [SUPERVISOR, WORKER], ids=["supervisor", "worker"])
def test_no_modules_import_each_other_in_a_circle(package: Path) -> None:
    modules = dict(list_modules(package))
    graph = {
        name: {
            imported if imported in modules else imported.rpartition(".")[0]
            for imported in list_imports(tree)
            if imported.split(".")[0] == package.name
        }
        - {name, package.name}
        for name, tree in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", [SUPERVISOR, WORKER], ids=["supervisor", "worker"])
def test_no_module_stands_loose_beside_the_folders(package: Path) -> None:
    assert {path.stem for path in package.glob("*.py")} == LOOSE[package]


def test_no_module_of_the_worker_side_imports_the_supervisor() -> None:
    guilty = [
        name
        for name, tree in list_modules(WORKER)
        if any(imported.split(".")[0] == "recyclery" for imported in list_imports(tree))
    ]
    assert guilty == []


def test_what_decides_imports_nothing_that_asks_or_changes_the_world() -> None:
    guilty = {
        f"{name}: {imported}"
        for name, tree in list_modules(SUPERVISOR / "decide")
        for imported in list_imports(tree)
        if imported.split(".")[0] in INPUT_OUTPUT
    }
    assert guilty == set()


def test_a_governor_without_http_loads_neither_that_nor_what_the_pools_use() -> None:
    code = (
        f"import sys, recyclery.governor.__main__;print([name for name in {UNUSED!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_top_level_name_is_defined_in_two_modules() -> None:
    modules: dict[str, set[str]] = {}
    for package in (SUPERVISOR, WORKER):
        for module, tree in list_modules(package):
            for name in list_definitions(tree):
                modules.setdefault(name, set()).add(module)
    doubles = {name: found for name, found in modules.items() if len(found) > 1 and name[0] != "_"}
    assert {name: found for name, found in doubles.items() if name not in SHARED_NAMES} == {}
