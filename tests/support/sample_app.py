"""The Celery app that tests run under the supervisor; it knows nothing of Recyclery."""

import functools
import json
import os
import signal
import subprocess
import time
import tracemalloc
from pathlib import Path

import redis
from celery import Celery

url = os.environ["REDIS_URL"]
app = Celery("sample", broker=url, backend=url)
app.conf.broker_connection_retry_on_startup = True

kept: list[object] = []
latest: list[bytes] = []


@app.task
def add(x: int, y: int) -> int:
    """Return x + y."""
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    """Return the sum of the numbers."""
    return sum(numbers)


@app.task
def clock() -> float:
    """Return the time of day."""
    return time.time()


@app.task
def nap(seconds: float) -> int:
    """Sleep, and return the pool child's pid."""
    time.sleep(seconds)
    return os.getpid()


@app.task(acks_late=False)
def nap_until_once(path: str) -> int:
    """Sleep until a file is there; a task that must not run twice."""
    pid: int = nap_until(path)
    return pid


@app.task
def note(path: str, mark: str, seconds: float) -> None:
    """Append a mark to a file as it starts, then sleep."""
    with Path(path).open("a") as file:
        file.write(f"{mark}\n")
    time.sleep(seconds)


@app.task
def run_until(runs: str, gate: str) -> str:
    """Mark the run in a file, sleep until another is there, and return the marks."""
    with Path(runs).open("a") as marks:
        marks.write("x")
    while not Path(gate).exists():
        time.sleep(0.02)
    return Path(runs).read_text()


@app.task
def nap_until(path: str) -> int:
    """Sleep until a file is there, and return the pool child's pid."""
    Path(f"{path}.begun").touch()
    while not Path(path).exists():
        time.sleep(0.02)
    return os.getpid()


@app.task
def leave_process(program: str) -> tuple[int, int]:
    """Start a program, forget it, and return the pids of the pool child and of the program."""
    process = subprocess.Popen([program, "600"])
    kept.append(process)
    # Starts are dated in clock ticks of 10 ms: one that is not a tick old may be anybody's.
    time.sleep(0.05)
    return os.getpid(), process.pid


@app.task
def leave_process_later(program: str) -> tuple[int, int]:
    """Do the same, but not within the clock tick in which the task before may have ended."""
    time.sleep(0.05)
    left: tuple[int, int] = leave_process(program)
    return left


@app.task
def wait_for_process(program: str) -> int:
    """Start a program, wait for its end, and return its exit code."""
    return subprocess.run([program, "600"], check=False).returncode


@app.task
def leave_memory(size_bytes: int) -> int:
    """Keep touched memory in the pool child, and return the child's pid."""
    kept.append(b"x" * size_bytes)
    return os.getpid()


@app.task
def leave_words(count: int) -> int:
    """Keep many small objects, put a large one in the last one's place, and return the child's pid."""
    words = [f"word {number}" for number in range(count)]
    kept.append(words)
    latest[:] = [bytes(1_000_000)]
    return os.getpid()


@app.task
def is_tracing(seconds: float = 0) -> tuple[int, bool]:
    """Sleep, and return the child's pid and whether it traces Python's allocations."""
    time.sleep(seconds)
    return os.getpid(), tracemalloc.is_tracing()


@app.task
def hold_memory(size_bytes: int, path: str) -> None:
    """Hold touched memory until a file is there."""
    held = b"x" * size_bytes
    nap_until(path)
    del held


@app.task
def grow_once(size_bytes: int, path: str) -> int:
    """On the first run take memory and wait to be killed for it; return which run this is."""
    runs = Path(path)
    with runs.open("a") as marks:
        marks.write("x")
    if runs.stat().st_size == 1:
        kept.append(b"x" * size_bytes)
        time.sleep(600)
    return runs.stat().st_size


@app.task
def grow_step_by_step(size_bytes: int, path: str) -> int:
    """On the first run grow until killed, 10 MB at a time; return which run this is."""
    runs = Path(path)
    with runs.open("a") as marks:
        marks.write("x")
    if runs.stat().st_size == 1:
        for _ in range(size_bytes // 10_000_000):
            kept.append(b"x" * 10_000_000)
            time.sleep(0.1)
        time.sleep(600)
    return runs.stat().st_size


@app.task
def leave_orphans(count: int) -> None:
    """Start processes whose parent leaves before they do."""
    for _ in range(count):
        subprocess.run(["sh", "-c", "sleep 0.5 & exit 0"], check=True)


@app.task
def open_browser(chrome: str, chromedriver: str, folder: str, seconds: float) -> None:
    """Open a real browser, write the pool child's pid to `folder`/child, sleep, and leave it open."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    kept.append(driver)
    driver.get("data:text/html,<h1>text</h1>")
    Path(folder, "child").write_text(str(os.getpid()))
    time.sleep(seconds)


@app.task
def browse(folder: str, keep: int) -> str:
    """Load a page in a browser that is kept, note this pool child's pid, and return the browser's profile."""
    from recyclery_worker.browser import browser

    with browser(keep=keep) as driver:
        driver.get("data:text/html,<h1>text</h1>")
        Path(folder, "child").write_text(str(os.getpid()))
        profile: str = driver.capabilities["chrome"]["userDataDir"]
        return profile


@app.task
def hold_session(chrome: str, chromedriver: str, folder: str, seconds: float) -> None:
    """Open a browser as people do, write who is who to `folder`/session, sleep, and leave it open."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    kept.append(driver)
    driver.get("data:text/html,<h1>text</h1>")
    service = driver.service.process
    threads = Path(f"/proc/{service.pid}/task").glob("*/children")
    browsers = [int(pid) for thread in threads for pid in thread.read_text().split()]
    told = {"child": os.getpid(), "chromedriver": service.pid, "browser": browsers[0]}
    unready = Path(folder, "session.new")
    unready.write_text(json.dumps(told))
    unready.rename(Path(folder, "session"))
    time.sleep(seconds)


@functools.cache
def counter() -> redis.Redis:
    """The Redis of this pool child."""
    return redis.Redis.from_url(url)


@app.task
def count_run(number: int) -> int:
    """Count that this ran, and return the number."""
    counter().incr("sample:runs")
    return number


@app.task
def runs_counted() -> int:
    """Return how often `count_run` ran."""
    return int(counter().get("sample:runs") or 0)


@app.task
def die(path: str, times: int) -> int:
    """Kill the process that runs this so many times; return which run this is."""
    runs = Path(path)
    with runs.open("a") as marks:
        marks.write("x")
    if runs.stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return runs.stat().st_size


@app.task(acks_on_failure_or_timeout=False, time_limit=1)
def overrun(path: str) -> None:
    """Run into the hard time limit, after which this task is given back."""
    nap_until(path)


@app.task
def exhaust_memory() -> None:
    """Ask for more memory than there is, which raises MemoryError."""
    bytearray(1 << 60)


@app.task
def end_worker_when(path: str, gate: str) -> None:
    """Mark the run in a file, and kill the worker's main process when another file is there."""
    with Path(path).open("a") as marks:
        marks.write("x")
    while not Path(gate).exists():
        time.sleep(0.02)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


@app.task
def end_worker(path: str, times: int) -> int:
    """Kill the worker's main process this many times, as soon as it runs; return which run this is."""
    runs = Path(path)
    with runs.open("a") as marks:
        marks.write("x")
    if runs.stat().st_size <= times:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    return runs.stat().st_size
