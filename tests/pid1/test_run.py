"""`recyclery run` on real parts: what it starts, how it stops, and how it says that it cannot."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from celery import Celery

from recyclery.pid1.run import check_app
from support.supervised import SUPPORT, supervised
from support.waiting import is_alive, wait_for


def test_both_pools_of_the_guide_start_with_its_banner(fresh_redis: str) -> None:
    with supervised(redis_url=fresh_redis) as running:
        running.wait_until_ready("fast", "slow")
        for line in (
            "🔨 Starting Celery Worker",
            "ℹ  Processing queues: high,default",
            "ℹ  Worker name: fast",
            "ℹ  Processing queues: low",
            "ℹ  Worker name: slow",
        ):
            assert line in running.lines
        assert running.stop() == 0


@pytest.mark.slow
def test_a_workers_name_in_the_environment_starts_that_pool_alone(sender: Celery, fresh_redis: str) -> None:
    variables = {"CELERY_WORKER_NAME": "slow", "CELERY_QUEUES": "low", "CELERY_MAX_TASKS_PER_CHILD": "5"}
    with supervised(redis_url=fresh_redis, environment=variables) as running:
        running.wait_until_ready("slow")
        pools = running.status()["pools"]
        assert list(pools) == ["slow"]
        assert (pools["slow"]["queues"], pools["slow"]["max_tasks_per_child"]) == (["low"], 5)


def test_running_tasks_are_drained_before_it_ends_with_0(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with supervised(redis_url=fresh_redis) as running:
        result = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "the task runs")
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_line("Warm shutdown", count=2)
        gate.touch()
        assert running.wait() == 0
        assert result.get(timeout=5) > 0


@pytest.mark.slow
def test_all_pools_are_told_to_stop_at_once(sender: Celery, fresh_redis: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with supervised(redis_url=fresh_redis) as running:
        for queue in ("low", "high"):
            sender.send_task("sample_app.nap_until", (f"{gate}.{queue}",), queue=queue)
            wait_for(Path(f"{gate}.{queue}.begun").exists, "the task runs")
        running.process.send_signal(signal.SIGTERM)
        # Both say so while neither can end.
        running.wait_for_line("Warm shutdown", count=2)
        for queue in ("low", "high"):
            Path(f"{gate}.{queue}").touch()
        assert running.wait() == 0


@pytest.mark.slow
def test_a_task_that_outlasts_the_grace_is_killed_and_it_ends_with_1(sender: Celery, fresh_redis: str) -> None:
    with supervised("--pool", "slow", "--grace", "1", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        sender.send_task("sample_app.nap", (600,), queue="low")
        running.wait_for_line("received")
        assert running.stop() == 1


@pytest.mark.slow
def test_a_second_term_kills_at_once(sender: Celery, fresh_redis: str) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        sender.send_task("sample_app.nap", (600,), queue="low")
        running.wait_for_line("received")
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_line("waiting for ")
        time.sleep(1.2)  # Within a second it would count as the same request.
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_line("SIGTERM again")
        assert running.wait() == 1


@pytest.mark.slow
def test_a_term_sent_twice_in_one_breath_is_one_request(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        result = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "the task runs")
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_line("SIGTERM: stopping")
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_line("Warm shutdown")
        gate.touch()
        assert running.wait() == 0
        assert result.get(timeout=5) > 0


def test_nothing_it_started_is_left_when_it_has_ended(
    sender: Celery, fresh_redis: str, false_browser: str
) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        child, left = sender.send_task("sample_app.leave_process", ("/bin/sleep",), queue="low").get(timeout=30)
        assert is_alive(left)
        assert running.stop() == 0
        assert not is_alive(left)
        assert not is_alive(child)


def test_a_main_process_that_is_killed_is_started_again(sender: Celery, fresh_redis: str) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        running.wait_for_line("slow entered RUNNING state")
        first = running.status()["pools"]["slow"]["pid"]
        os.kill(first, signal.SIGKILL)
        running.wait_for_line("ready.", count=2)
        result = sender.send_task("sample_app.add", (1, 2), queue="low")
        assert result.get(timeout=30) == 3
        assert running.status()["pools"]["slow"]["pid"] != first
        assert running.stop() == 0


def test_a_pool_that_does_not_stay_up_ends_it_with_70(fresh_redis: str, tmp_path: Path) -> None:
    # The check in another process passes, the workers do not.
    app = tmp_path / "moody_app.py"
    app.write_text(
        "import os, sys\nfrom celery import Celery\napp = Celery(broker=os.environ['REDIS_URL'])\n"
        "if 'worker' in sys.argv:\n    print('half a', flush=True)\n    sys.stderr.write('in a mood')\n"
        "    sys.stderr.flush()\n    os._exit(3)\n"
    )
    environment = {
        "CELERY_APP": "moody_app",
        "PYTHONPATH": str(tmp_path),
        "RECYCLERY_MAX_DEATHS": "2",
    }
    with supervised("--pool", "slow", redis_url=fresh_redis, environment=environment) as running:
        assert running.wait(60) == 70
        assert "slow | half a" in running.lines
        assert "slow | in a mood" in running.lines
        assert "slow does not stay up" in running.output


def test_workers_wait_for_a_redis_that_is_away_and_start_when_it_comes(tmp_path: Path) -> None:
    from support.redis_server import find_redis_server

    address = tmp_path / "redis.sock"
    with supervised("--pool", "slow", redis_url=f"redis+socket://{address}") as running:
        running.wait_for_line("waiting for the broker at")
        server, folder = str(find_redis_server()), str(tmp_path)
        command = [server, "--port", "0", "--unixsocket", str(address), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as redis:
            try:
                running.wait_until_ready("slow")
                assert running.stop() == 0
            finally:
                redis.terminate()


@pytest.mark.slow
def test_the_supervisor_stops_while_its_workers_wait_for_a_redis_that_is_away(tmp_path: Path) -> None:
    with supervised("--pool", "slow", redis_url=f"redis+socket://{tmp_path}/redis.sock") as running:
        running.wait_for_line("waiting for the broker at")
        assert running.stop() == 0


def run_to_the_end(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "recyclery", "run", *arguments],
        # The folder's name is short: a unix socket's address is.
        env=clean | {"REDIS_URL": "redis://127.0.0.1:1/0", "PYTHONPATH": str(SUPPORT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"CELERY_APP": "no_such_module"}, ["no_such_module", "cannot be imported", "CELERY_APP"]),
        ({"CELERY_APP": "sample_app", "CELERY_MAX_TASKS_PER_CHILD": "ten", "CELERY_WORKER_NAME": "slow"},
         ["CELERY_MAX_TASKS_PER_CHILD", "'ten'"]),
        ({"CELERY_APP": "sample_app", "RECYCLERY_LOG_FORMAT": "xml"},
         ["RECYCLERY_LOG_FORMAT", "'xml'", "text, json"]),
        ({"CELERY_APP": "sample_app", "RECYCLERY_MAX_DEATHS": "0"}, ["RECYCLERY_MAX_DEATHS", "'0'"]),
        ({"CELERY_APP": "sample_app", "RECYCLERY_DEATH_WINDOW": "soon"}, ["RECYCLERY_DEATH_WINDOW", "'soon'"]),
        ({"CELERY_APP": "sample_app", "RECYCLERY_WATCHDOG": "1"}, ["RECYCLERY_WATCHDOG", "5 to 3600"]),
        ({}, ["CELERY_APP"]),
    ],
)  # fmt: skip
def test_bad_configuration_is_told_on_standard_error_and_ends_it_with_78(
    environment: dict[str, str], words: list[str]
) -> None:
    with tempfile.TemporaryDirectory(prefix="rcy-") as runtime_dir:
        done = run_to_the_end({"RECYCLERY_RUNTIME_DIR": runtime_dir} | environment)
    assert (done.returncode, done.stdout) == (78, "")
    assert [word for word in words if word not in done.stderr] == []
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit(0)", ["SystemExit"]),
        ("1/0", ["ZeroDivisionError"]),
        ("from celery import Celery; app = Celery(broker='redis://:s3cret/xyz@h:6379/0')", ["percent-encode"]),
    ],
)
def test_an_app_that_cannot_be_used_is_told_without_its_secrets(
    code: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "odd_app.py").write_text(code)
    with tempfile.TemporaryDirectory(prefix="rcy-") as runtime_dir:
        done = run_to_the_end(
            {"CELERY_APP": "odd_app", "PYTHONPATH": str(tmp_path), "RECYCLERY_RUNTIME_DIR": runtime_dir}
        )
    assert done.returncode == 78
    assert [word for word in words if word not in done.stderr] == []
    assert "s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_the_app_prints_when_it_is_imported_and_when_it_ends_is_no_matter(
    fresh_redis: str, tmp_path: Path
) -> None:
    (tmp_path / "loud_app.py").write_text(
        "import atexit, os\nfrom celery import Celery\nprint('hello')\natexit.register(print, 'bye')\n"
        "app = Celery(broker=os.environ['REDIS_URL'])\n"
    )
    environment = {"CELERY_APP": "loud_app", "PYTHONPATH": str(tmp_path)}
    with supervised("--pool", "slow", redis_url=fresh_redis, environment=environment) as running:
        running.wait_until_ready("slow")


APP = "import os\nfrom celery import Celery\napp = Celery(broker=os.environ['REDIS_URL'])\n"


@pytest.mark.parametrize(
    "code",
    [
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n",
        "import subprocess\nsubprocess.Popen(['sleep', '60'])\n",
        "import subprocess\nsubprocess.Popen(['sleep', '60'], start_new_session=True)\n",
    ],
    ids=["thread", "helper", "daemon"],
)
def test_what_an_app_starts_when_it_is_imported_does_not_keep_its_check(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "busy_app.py").write_text(code + APP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr("recyclery.pid1.run.APP_CHECK_SECONDS", 30.0)
    begun = time.monotonic()
    assert check_app("busy_app") == "redis://127.0.0.1:1/0"
    assert time.monotonic() - begun < 25


def test_a_runtime_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    done = run_to_the_end({"CELERY_APP": "sample_app", "RECYCLERY_RUNTIME_DIR": str(tmp_path / "open")})
    assert done.returncode == 78
    assert "others can write to it" in done.stderr


def test_a_second_supervisor_in_the_same_runtime_folder_is_refused(fresh_redis: str) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_for_line("Starting Celery Worker")
        done = run_to_the_end({"CELERY_APP": "sample_app", "RECYCLERY_RUNTIME_DIR": str(running.runtime_dir)})
        assert done.returncode == 78
        assert f"another supervisor (pid {running.process.pid})" in done.stderr


def test_a_runtime_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_to_the_end({"CELERY_APP": "sample_app", "RECYCLERY_RUNTIME_DIR": str(tmp_path / "file" / "run")})
    assert done.returncode == 78
    assert "RECYCLERY_RUNTIME_DIR" in done.stderr


def test_a_runtime_folder_too_long_for_sockets_is_told(tmp_path: Path) -> None:
    done = run_to_the_end({"CELERY_APP": "sample_app", "RECYCLERY_RUNTIME_DIR": str(tmp_path / ("x" * 90))})
    assert done.returncode == 78
    assert "too long for unix sockets" in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT], ids=["term", "quit"])
def test_a_stop_while_the_app_is_still_being_checked_ends_it_with_0(
    fresh_redis: str, tmp_path: Path, signum: signal.Signals
) -> None:
    begun = tmp_path / "begun"
    app = tmp_path / "sleepy_app.py"
    app.write_text(f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(60)\n")
    environment = {"CELERY_APP": "sleepy_app", "PYTHONPATH": str(tmp_path)}
    with supervised(redis_url=fresh_redis, environment=environment) as running:
        wait_for(begun.exists, "the app is being imported")
        assert running.stop(signum, seconds=10) == 0
        assert running.output == ""


def test_wrong_usage_ends_it_with_2() -> None:
    assert run_to_the_end({}, "--nonsense").returncode == 2


@pytest.mark.slow
def test_supervisorctl_works(fresh_redis: str) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_for_line("slow entered RUNNING state")
        configuration = running.runtime_dir / "supervisord.conf"
        done = subprocess.run(
            [Path(sys.executable).with_name("supervisorctl"), "-c", configuration, "status"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert [line.split()[:2] for line in done.stdout.splitlines()] == [
            ["governor", "RUNNING"],
            ["slow", "RUNNING"],
            ["slow-b", "STOPPED"],
        ]
        subprocess.run(
            [Path(sys.executable).with_name("supervisorctl"), "-c", configuration, "reload"], check=True
        )
        running.wait_for_line("reload is not done here")
        assert running.status()["pools"]["slow"]["state"] == "running"
