"""`gateway limits` and `budgets`, on the store alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import rules as module
from gateway.core.rules import MEASURES, PERIODS, SUBJECTS
from tests.cli.test_managing import done, got, lines, run

RATE = ("limits", "create", "a minute", "--most", "60", "--period", "minute")
SPEND = ("budgets", "create", "shop", "--most", "12.50", "--period", "month")


def test_a_limit_is_made_listed_changed_and_deleted(place: Path) -> None:
    made = got(*RATE, "--model", "openai/*", "--caller", "tok_1", "--each", "model,key")
    wanted = {
        "object": "limit",
        "name": "a minute",
        "measure": "requests",
        "most": 60,
        "period": "minute",
        "match": {"model": "openai/*", "caller": "tok_1"},
        "each": ["key", "model"],
        "created_by": "cli",
    }
    assert made.items() >= wanted.items()
    id = made["id"]
    assert got("limits", "show", id) == made
    assert lines("limits", "list") == [made]
    text = done("limits", "show", id)
    assert "most       60 requests a minute\n" in text
    assert "about      caller tok_1, model openai/*\n" in text
    assert done("limits", "list").splitlines()[1].startswith(f"{id}  a minute  60 requests a minute")
    assert got("limits", "change", id, "--most", "5", "--name", "few") == {**made, "most": 5, "name": "few"}
    assert run("limits", "change", id)[0] == 2
    assert got("limits", "delete", id)["name"] == "few"
    assert run("limits", "list")[1:] == ("", "There are none.\n")
    assert run("limits", "delete", id)[::2] == (1, "gateway: There is no such limit.\n")
    assert [line["action"] for line in lines("audit", "--kind", "limit")] == ["delete", "change", "create"]


def test_calls_at_once_have_no_period(place: Path) -> None:
    made = got("limits", "create", "few", "--measure", "parallel", "--most", "3")
    assert (made["most"], made["period"]) == (3, None)
    assert "most       3 at once\n" in done("limits", "show", made["id"])


def test_a_budget_is_in_dollars_and_warns_where_it_is_told_to(place: Path) -> None:
    project = got("projects", "create", "shop")["id"]
    made = got(*SPEND, "--project", "shop", "--soft", "0.8", "--webhook", "https://hooks.example.com/x")
    assert (made["most"], made["soft"], made["webhook"]) == ("12.5", 0.8, "https://hooks.example.com/x")
    assert made["match"] == {"project": project}
    assert "soft       0.8\nwebhook    https://hooks.example.com/x\n" in done("budgets", "show", made["id"])
    changed = got("budgets", "change", made["id"], "--soft", "never", "--webhook", "never", "--most", "20")
    assert (changed["soft"], changed["webhook"], changed["most"]) == (None, None, "20")
    assert "most       20 usd a month\n" in done("budgets", "show", made["id"])
    total = got("budgets", "create", "all", "--measure", "tokens", "--most", "1000000", "--period", "total")
    assert (total["measure"], total["most"]) == ("tokens", 1_000_000)
    assert "most       1000000 tokens in all\n" in done("budgets", "show", total["id"])
    assert [one["id"] for one in lines("budgets", "list", "--project", "shop")] == [made["id"]]
    assert run("budgets", "list", "--limit", "1")[2] == f"There are more: --after {total['id']}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((*RATE, "--key", "abcdefabcdef"), 1, "There is no such key: 'abcdefabcdef'"),
        ((*RATE, "--project", "nobody"), 1, "There is no such project: 'nobody'"),
        (("limits", "show", "nobody"), 1, "There is no such limit."),
        (("limits", "list", "--after", "nobody"), 1, "There is no such limit."),
        (("limits", "create", "a", "--most", "5"), 2, "period must be one of minute, day"),
        (("limits", "create", "a", "--most", "5.5", "--period", "day"), 2, "most must be a whole number"),
        (("limits", "create", "a", "--most", "9" * 5000, "--period", "day"), 2, "most must be a whole number"),
        (("limits", "create", "a", "--period", "day"), 2, "required"),
        ((*RATE, "--each", "keys"), 2, "each must be a list of some of"),
        ((*RATE, "--soft", "0.5"), 2, "unrecognized"),
        (("limits", "create", "a", "--most", "5", "--period", "month"), 2, "invalid choice"),
        ((*SPEND, "--webhook", "https://a.example"), 2, "A webhook needs soft"),
        ((*SPEND, "--soft", "80%"), 2, "a share such as 0.8 is needed"),
        ((*SPEND, "--soft", "80"), 2, "soft must be a share of most"),
        (("budgets", "create", "a", "--most", "1.0000001", "--period", "day"), 2, "with 6 decimals at most"),
    ],
)
def test_what_cannot_be_done_says_why_and_nothing_is_made(
    place: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (status, "")
    assert said in err
    assert lines("audit") == []


def test_what_can_be_said_is_what_rules_can_have() -> None:
    assert (module.MEASURES, module.PERIODS) == (MEASURES, PERIODS)
    assert tuple(module._MATCH) == SUBJECTS
