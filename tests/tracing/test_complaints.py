"""The same trouble is not said at every turn."""

from __future__ import annotations

import logging

import pytest

from gateway.tracing import complaints as module
from gateway.tracing.complaints import Complaints


def test_a_trouble_is_said_once_a_minute_and_anew_when_it_was_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s[0])
    complaints = Complaints(logging.getLogger("gateway.test"))
    complaints.say("full: %d", 1)
    now_s[0] += 59
    complaints.say("full: %d", 2)
    now_s[0] += 1
    complaints.say("full: %d", 3)
    complaints.over()
    complaints.say("full: %d", 4)
    assert [record.getMessage() for record in caplog.records] == ["full: 1", "full: 3", "full: 4"]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
