"""The current settings, in the runtime folder: written by PID 1, read by each governor that starts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from recyclery.config.settings import Settings


def write_settings(settings: Settings) -> None:
    """Write them atomically, readable by their owner only; raises OSError."""
    path = settings.runtime_dir / "settings.json"
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(settings, enc_hook=str))
    new.chmod(0o600)
    new.replace(path)


def read_settings(directory: Path) -> Settings:
    """Return the stored settings."""

    def to_path(kind: type, value: object) -> object:
        return Path(str(value)) if kind is Path else value

    return msgspec.json.decode((directory / "settings.json").read_bytes(), type=Settings, dec_hook=to_path)
