"""The settings in force, in the runtime folder: written by PID 1, read by every governor that starts."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from recyclery.config.settings import Settings


def write_settings(settings: Settings) -> None:
    """Write them, whole or not at all, for their owner alone; raises OSError."""
    path = settings.runtime_dir / "settings.json"
    beside = path.with_suffix(".new")
    beside.write_bytes(msgspec.json.encode(settings, enc_hook=str))
    beside.chmod(0o600)
    os.replace(beside, path)  # noqa: PTH105  # one step, as rename(2) is


def read_settings(directory: Path) -> Settings:
    """Read them back."""

    def to_path(kind: type, value: object) -> object:
        return Path(str(value)) if kind is Path else value

    return msgspec.json.decode((directory / "settings.json").read_bytes(), type=Settings, dec_hook=to_path)
