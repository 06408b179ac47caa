"""The pepper that is kept in the data folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.auth.pepper import FILE, kept_pepper
from gateway.storage.database import StorageFailed


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    made = kept_pepper(folder)
    assert kept_pepper(folder) == made
    assert len(made.reveal()) == 64
    assert [file.name for file in folder.iterdir()] == [FILE]
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert kept_pepper(tmp_path / "other") != made


def test_processes_that_make_it_at_once_agree(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from gateway.auth.pepper import kept_pepper; "
        "print(kept_pepper(Path(sys.argv[1])).reveal())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data")]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {start.communicate(timeout=60)[0].strip() for start in starts}
    assert said == {kept_pepper(tmp_path / "data").reveal()}


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64])
def test_a_file_that_holds_none_is_left_alone_and_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StorageFailed, match=FILE):
        kept_pepper(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="Not a directory"):
        kept_pepper(tmp_path / "file" / "data")
