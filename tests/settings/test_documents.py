"""The papers that are made from the rows.

`uv run python tests/settings/test_documents.py` writes `.env.example` and the table in `docs/settings.md` anew.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gateway.settings import Settings
from gateway.settings.documents import env_example, markdown_table

TOP = Path(__file__).resolve().parents[2]


TABLE = "<!-- made from gateway/settings/table.py -->\n"


def test_the_example_file_is_made_from_the_rows() -> None:
    assert (TOP / ".env.example").read_text() == env_example(), "run: uv run python tests/settings/test_documents.py"


def test_the_example_file_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(env_example())
    assert Settings.from_env({}, tmp_path) == dataclasses.replace(Settings(), data_dir=tmp_path / ".gateway")


def test_the_example_file_is_valid_once_its_defaults_are_uncommented(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") for line in env_example().splitlines() if line.partition("=")[2]]
    (tmp_path / ".env").write_text("\n".join(line for line in lines if line.startswith(("GATEWAY", "LOG", "BRA"))))
    assert Settings.from_env({}, tmp_path) == dataclasses.replace(Settings(), data_dir=tmp_path / ".gateway")


def test_the_guide_has_the_table_of_the_rows() -> None:
    page = (TOP / "docs/settings.md").read_text()
    assert page.partition(TABLE)[2] == markdown_table(), "run: uv run python tests/settings/test_documents.py"


def write_papers() -> None:
    (TOP / ".env.example").write_text(env_example())
    guide = TOP / "docs/settings.md"
    guide.write_text(guide.read_text().partition(TABLE)[0] + TABLE + markdown_table())


if __name__ == "__main__":
    write_papers()
