"""What `import supervisor` means, with a folder of that name at the repository's root."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("folder", [ROOT, ROOT / "supervisor", ROOT / "worker_pool", ROOT / "tests", Path("/")])
def test_import_supervisor_gives_the_process_engine_from_every_folder(folder: Path) -> None:
    code = "import supervisor, supervisor.supervisord; print(supervisor.supervisord.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).is_relative_to(ROOT / "supervisor")


def test_neither_source_root_is_a_package() -> None:
    assert not (ROOT / "supervisor" / "__init__.py").exists()
    assert not (ROOT / "worker_pool" / "__init__.py").exists()


def test_the_governor_does_not_load_celery() -> None:
    code = "import sys, recyclery.governor.__main__; print('celery' in sys.modules, 'redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_without_http_the_governor_loads_nothing_that_serves_it() -> None:
    code = "import sys, recyclery.governor; print({'h11', 'itsdangerous'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_pid_1_tries_the_listener_out_without_what_serves_http() -> None:
    code = "import sys, recyclery.pid1.run; print({'h11', 'asyncio', 'recyclery.http'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_worker_side_never_imports_the_supervisor() -> None:
    modules = [
        "broker.wait",
        "browser",
        "app_check",
        "pool.child",
        "delivery.lease",
        "link",
        "plugin",
        "pool.prefork",
        "control.server",
    ]
    imports = ", ".join(f"recyclery_worker.{module}" for module in modules)
    code = f"import sys, {imports}; print([m for m in sys.modules if m.split('.')[0] == 'recyclery'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
