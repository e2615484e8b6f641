"""A temporary folder of a test's own, and sites for browsers to go to."""

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def private_tmp(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short temporary folder, so that a test sees its own leftovers and no one else's."""
    tmp_path_factory.getbasetemp()  # Made now, outside of it.
    folder = Path(tempfile.mkdtemp(prefix="tb-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    # Kept only where a test is about it.
    monkeypatch.setenv("RECYCLERY_EVIDENCE_DIR", "")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """A server that takes a request and never answers: its URL, and the event that one has come."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked, closing = threading.Event(), threading.Event()

    def serve() -> None:
        connections = []
        while not closing.is_set():
            connection, _ = listener.accept()
            connections.append(connection)
            asked.set()
        for connection in connections:
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/", asked
    closing.set()
    socket.create_connection(listener.getsockname()).close()
    thread.join()
    listener.close()
