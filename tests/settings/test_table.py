"""The rows."""

from __future__ import annotations

import dataclasses

from gateway.settings import Settings
from gateway.settings.table import GROUPS, SETTINGS


def test_every_row_has_help_and_an_attribute_of_its_own() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    for row in SETTINGS:
        assert row.help.endswith(".")
        assert row.attribute in fields
    for column in ("env", "attribute"):
        assert len({getattr(row, column) for row in SETTINGS}) == len(SETTINGS)
    assert [row for rows in GROUPS.values() for row in rows] == list(SETTINGS)
