"""`gateway cache`, on the store alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.storage.answers import KeptAnswer
from gateway.storage.answers_table import TableAnswers
from gateway.storage.database import Database
from gateway.storage.migrate import upgrade
from tests.cli.test_managing import run


@pytest.fixture
def kept(place: Path) -> TableAnswers:
    """A store in which two tenants have answers."""
    path = place / Settings().database
    upgrade(path)
    answers = TableAnswers(Database(path), 1 << 20, 1 << 20)
    for number, tenant in enumerate(("tok_1", "tok_1", "proj_2")):
        answers.keep(KeptAnswer(tenant, f"{number:064}", time.time(), time.time() + 60, b"x" * 100))
    return answers


def test_it_says_how_much_is_kept(kept: TableAnswers) -> None:
    assert run("cache", "show") == (0, "answers: 3\nbytes: 303\n", "")
    assert run("cache", "show", "--tenant", "proj_2")[1] == "answers: 1\nbytes: 101\n"


def test_it_forgets_what_it_is_told_to(kept: TableAnswers) -> None:
    assert run("cache", "clear", "--tenant", "tok_1") == (0, "answers forgotten: 2\n", "")
    assert kept.find("proj_2", [f"{2:064}"]) is not None
    assert run("cache", "clear")[1] == "answers forgotten: 1\n"
    assert kept.holdings().answers == 0


def test_where_nothing_was_ever_kept_it_says_so(place: Path) -> None:
    assert run("cache", "show")[:2] == (0, "answers: 0\nbytes: 0\n")


def test_a_store_of_each_worker_cannot_be_looked_into(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CACHE_STORE", "memory")
    status, out, said = run("cache", "clear")
    assert (status, out) == (1, "")
    assert "each worker has its own" in said


def test_a_store_that_is_away_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    status, out, said = run("cache", "show")
    assert (status, out) == (1, "")
    assert "redis://127.0.0.1:1/0" in said
    assert "secret" not in said


def test_settings_that_cannot_be_used_are_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CACHE_STORE", "redis")
    status, _, said = run("cache", "show")
    assert status == 2
    assert "REDIS_URL" in said


def test_without_a_verb_it_says_which_there_are(place: Path) -> None:
    assert run("cache")[0] == 2
