"""What a store that did not do its work raises."""

from __future__ import annotations


class StorageError(Exception):
    """The database did not do it; `str()` is one line that holds no SQL, no content and no password."""


class StorageBusy(StorageError):
    """Others held the database, or all its connections, for too long."""


class StorageFailed(StorageError):
    """The database is away, damaged, full, read-only, of another release, or no database at all."""
