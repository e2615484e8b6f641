"""browsers_kills: not a benchmark; how soon nothing is left of a browser whose owner or part is killed."""

from __future__ import annotations

import itertools
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.browsers_meters import SHARED_MEMORY, bench_pids, count_kinds, list_entries, percentile
from benchmarks.browsers_stage import APP, QUEUE, Stage, running_stage
from benchmarks.workers import make_client, wait_until
from recyclery_worker.browser.driver import find_browser

VICTIMS = ("child", "chromedriver", "browser")
OURS, RAW = "browser()", "raw Selenium"
OPEN_SECONDS = 60.0
# What is still there then counts as never gone.
GONE_SECONDS = 20.0
POLL_SECONDS = 0.01
FILES_SECONDS = 30.0


@dataclass
class Kills:
    """The kills of one kind of victim: seconds until nothing was left, and how often something was for good."""

    seconds: list[float] = field(default_factory=list)
    never: int = 0

    def document(self) -> dict[str, float]:
        """Return it as the closing line has it."""
        return {
            "kills": len(self.seconds),
            "p50 s": round(percentile(self.seconds, 50), 2),
            "p99 s": round(percentile(self.seconds, 99), 2),
            "max s": round(max(self.seconds), 2),
            "never gone": self.never,
        }


@dataclass(frozen=True)
class Aftermath:
    """What is left when all is over."""

    files: dict[str, int]
    control_alive: bool


def measure_kills(
    temporary: Path, url: str, kills: int, chance: random.Random, say: Callable[[str], None]
) -> tuple[dict[str, Kills], Aftermath]:
    """Kill so many of each victim, in random order, with a Chrome beside them that is no pool's."""
    cases = list(itertools.product((OURS, RAW), VICTIMS)) * kills
    chance.shuffle(cases)
    results = {f"{kind}, {victim}": Kills() for kind, victim in itertools.product((OURS, RAW), VICTIMS)}
    with running_stage(temporary, concurrency=1, max_tasks=100_000) as stage, stranger(temporary) as control:
        before = list_entries([temporary, SHARED_MEMORY])
        begun: list[tuple[float, str]] = []
        for number, (kind, victim) in enumerate(cases):
            if number % 20 == 0:
                say(f"kills: {number} of {len(cases)}")
            begun.append((time.time(), f"{kind}, {victim}"))
            kill_one(stage, url, kind == RAW, victim, results[f"{kind}, {victim}"])
        deadline = time.monotonic() + FILES_SECONDS
        while (left := list_entries([temporary, SHARED_MEMORY]) - before) and time.monotonic() < deadline:
            time.sleep(0.2)
        for entry in sorted(left):
            say(f"left: {describe(entry, begun)}")
        aftermath = Aftermath(count_kinds(left), control.is_untouched())
        stage.stop()
    return results, aftermath


def describe(entry: Path, begun: Sequence[tuple[float, str]]) -> str:
    """Name what is left, what is in it, and the session that was there when it was last changed."""
    with suppress(OSError):
        changed = entry.lstat().st_mtime
        inside = sorted(path.name for path in entry.iterdir()) if entry.is_dir() else []
        whose = [name for start, name in begun if start <= changed][-1:]
        return f"{entry.name} {inside} of {', '.join(whose) or 'before the first session'}"
    return f"{entry.name}, gone meanwhile"


def kill_one(stage: Stage, url: str, raw: bool, victim: str, kills: Kills) -> None:
    """Open a session in the pool, kill its victim, and time until no process is left, even a defunct one."""
    token = secrets.token_hex(8)
    stage.sender.send_task(f"{APP}.hold", (raw, token, url), queue=QUEUE)
    told: Any = make_client(stage.redis_url).blpop([f"held:{token}"], timeout=OPEN_SECONDS)
    if told is None:
        raise TimeoutError(f"no session opened within {OPEN_SECONDS:g} s; see {stage.log}")
    pids = json.loads(told[1])
    child = pids["child"]
    if len(bench_pids(child, token)) < 8:
        raise RuntimeError(f"of the session only {bench_pids(child, token)} were found")
    began = time.monotonic()
    os.kill(pids[victim], signal.SIGKILL)
    while bench_pids(child, token):
        if time.monotonic() - began > GONE_SECONDS:
            kills.never += 1
            end_by_force(child, token)
            break
        time.sleep(POLL_SECONDS)
    kills.seconds.append(time.monotonic() - began)


def end_by_force(child: int, token: str) -> None:
    """Kill what nobody else did, so that the next session starts on an empty field."""
    for pid in bench_pids(child, token):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


@dataclass(frozen=True)
class Stranger:
    """A Chrome that no pool started, its profile beside those of the pools."""

    process: psutil.Process
    helpers: frozenset[psutil.Process]
    profile: Path

    def is_untouched(self) -> bool:
        """Tell whether it lives, with the helpers it had and its files, and answers."""
        try:
            port = (self.profile / "DevToolsActivePort").read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/version", timeout=5) as answer:
                answered = answer.status == 200
        except OSError:
            return False
        # Chrome's lock is a socket in a folder of its own in the temporary folder.
        return (
            answered
            and (self.profile / "SingletonSocket").exists()
            and all(helper.is_running() and helper.status() != psutil.STATUS_ZOMBIE for helper in self.helpers)
        )


@contextmanager
def stranger(temporary: Path) -> Iterator[Stranger]:
    """Run it until the block ends."""
    profile = Path(tempfile.mkdtemp(prefix="stranger-", dir=temporary))
    process = subprocess.Popen(
        [
            *(str(find_browser().chrome), "--headless=new", "--no-sandbox", "--disable-component-update"),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        wait_until((profile / "DevToolsActivePort").exists)
        own = psutil.Process(process.pid)
        lasting = (child for child in own.children() if "--type=renderer" not in child.cmdline())
        yield Stranger(own, frozenset([own, *lasting]), profile)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


def print_kills(results: dict[str, Kills], aftermath: Aftermath) -> None:
    """Print a row for each victim, and what is left."""
    header = f"{'session, killed by SIGKILL':28} {'kills':>5} {'p50 s':>6} {'p99 s':>6} {'max s':>6}"
    print(f"\n{header} {'never gone':>10}")
    for name, kills in results.items():
        row = kills.document()
        print(
            f"{name:28} {row['kills']:5.0f} {row['p50 s']:6.2f} {row['p99 s']:6.2f} {row['max s']:6.2f} "
            f"{row['never gone']:10.0f}"
        )
    files = ", ".join(f"{count} {kind}" for kind, count in aftermath.files.items()) or "none"
    print(f"files left: {files}")
    print(f"a stranger's Chrome beside them: {'untouched' if aftermath.control_alive else 'NOT AS IT WAS'}")
