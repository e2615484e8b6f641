"""The socket folders of dead Chromes go; those of living ones, of the young and of others stay."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recyclery.act.sockets import YOUNG_SECONDS, sweep_sockets


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own, with a short name."""
    with tempfile.TemporaryDirectory(prefix="rcs-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def make_folder(temporary: Path, age_seconds: float = 2 * YOUNG_SECONDS) -> tuple[Path, socket.socket]:
    """Make what a Chrome makes; return it with its listening socket."""
    folder = Path(tempfile.mkdtemp(prefix="org.chromium.Chromium.", dir=temporary))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "SingletonSocket"))
    listener.listen()
    (folder / "SingletonCookie").symlink_to("12345")
    changed = folder.stat().st_mtime - age_seconds
    os.utime(folder, (changed, changed))
    return folder, listener


def test_the_folder_of_a_dead_chrome_goes(temporary: Path) -> None:
    folder, listener = make_folder(temporary)
    listener.close()
    assert sweep_sockets() == [folder]
    assert not folder.exists()


def test_the_folder_of_a_living_chrome_stays(temporary: Path) -> None:
    folder, listener = make_folder(temporary)
    with listener:
        assert sweep_sockets() == []
        assert (folder / "SingletonSocket").is_socket()


def test_one_in_another_network_namespace_is_asked(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, listener = make_folder(temporary)
    monkeypatch.setattr("recyclery.act.sockets.read_file", lambda _: b"")
    with listener:
        assert sweep_sockets() == []
        assert folder.exists()


def test_a_folder_made_just_now_stays(temporary: Path) -> None:
    _, listener = make_folder(temporary, age_seconds=0)
    listener.close()
    assert sweep_sockets() == []


def test_a_folder_with_something_else_in_it_stays(temporary: Path) -> None:
    folder, listener = make_folder(temporary)
    listener.close()
    (folder / "note").write_text("a person's")
    os.utime(folder, (0, 0))
    assert sweep_sockets() == []
    assert (folder / "SingletonSocket").is_socket()


def test_a_folder_without_a_socket_stays(temporary: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="org.chromium.Chromium.", dir=temporary))
    os.utime(folder, (0, 0))
    assert sweep_sockets() == []
