"""The pepper of the data folder, made where the settings name none."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from gateway.secret import Secret
from gateway.storage.database import StorageFailed

FILE = "key-pepper"


def kept_pepper(folder: Path) -> Secret:
    """Return the pepper of a data folder, made on first use: readable by its owner only, whole or not there.

    Args:
        folder: made too, where it is not there.

    Raises:
        StorageFailed: it cannot be read or made, or is none.
    """
    path = folder / FILE
    try:
        if not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(path)
        kept = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageFailed(f"{path}: {getattr(error, 'strerror', None) or type(error).__name__}") from None
    if len(kept) < 32:
        raise StorageFailed(f"{path}: holds no pepper; put the right one back, or set GATEWAY_KEY_PEPPER")
    return Secret(kept)


def _make(path: Path) -> None:
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first, and its pepper counts
            os.link(unfinished, path)
    finally:
        unfinished.unlink()
