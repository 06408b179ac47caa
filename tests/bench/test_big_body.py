"""The large body is what it says, and the line what was measured."""

from __future__ import annotations

import json

import pytest

from bench.big_body import HEADS, Found, large, line


@pytest.mark.parametrize("size_bytes", [1000, 1003, 1 << 20])
def test_the_body_has_the_size_that_was_asked_for(size_bytes: int) -> None:
    body = large("openai/one", size_bytes)
    assert len(body) == size_bytes
    [message] = json.loads(body)["messages"]
    assert message["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0K")


def test_memory_is_told_by_the_size_of_the_body() -> None:
    found = Found(
        healthy_ms=[60.0, 70.0, 80.0],
        beside_ms=[500.0, 400.0, 900.0],
        delay_ms=([5.0], [300.0]),
        took_s=[1.0, 2.0, 1.0],
        grown_bytes=[2000, 4000],
    )
    cells = line("relay", found, 1000)
    assert cells == ["relay", "70 / 500", "5.0 / 300.0", "1.00 / 2.00", "4.0"]
    assert len(cells) == len(HEADS)
