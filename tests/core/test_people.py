"""Who somebody is by their claims, and who manages the gateway."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.people import AdminRule, Begun, Person, challenge, claim_of, kept_person, person_of
from gateway.errors import InvalidRequest

SAID = {"iss": "https://id.example", "sub": "ann-1", "email": "ann@example.com", "email_verified": True}
ANN, DOMAIN = AdminRule(frozenset({"ann@example.com"})), AdminRule(frozenset({"@example.com"}))
BOSSES = AdminRule(claim="groups", values=frozenset({"boss", "llm-admin"}))


def admitted(rule: AdminRule, **claims: Any) -> bool:
    return rule.admits(person_of({**SAID, **claims}, rule))


@pytest.mark.parametrize(
    ("rule", "claims"),
    [
        (ANN, {}),
        (ANN, {"email": "Ann@Example.COM"}),
        (ANN, {"email_verified": "true"}),
        (DOMAIN, {"email": "bob+x@EXAMPLE.com"}),
        (BOSSES, {"groups": ["staff", "boss"]}),
        (BOSSES, {"groups": "llm-admin"}),
        (BOSSES, {"groups": ["boss"], "email": None, "email_verified": False}),
        (AdminRule(claim="realm_access.roles", values=frozenset({"boss"})), {"realm_access": {"roles": ["boss"]}}),
        (AdminRule(claim="https://example.com/role", values=frozenset({"boss"})), {"https://example.com/role": "boss"}),
    ],
)
def test_an_admin_is_known_by_a_verified_address_or_a_claim(rule: AdminRule, claims: dict[str, Any]) -> None:
    assert admitted(rule, **claims)


@pytest.mark.parametrize("verified", [False, None, "false", "True", 1, [True], {}])
@pytest.mark.parametrize("rule", [ANN, DOMAIN])
def test_an_address_that_is_not_verified_counts_for_nothing(rule: AdminRule, verified: object) -> None:
    assert not admitted(rule, email_verified=verified)
    assert person_of({**SAID, "email_verified": verified}, rule).email is None


@pytest.mark.parametrize(
    "email",
    [
        "bob@evil-example.com",
        "bob@sub.example.com",
        "bob@example.com.evil",
        "bob@example.com@evil.example",
        "bob@evil.example@example.com",
        "@example.com",
        "bob@",
        "bob",
        "",
        "bob@example.com\n",
        " bob@example.com",
        "bob@ex\N{CYRILLIC SMALL LETTER A}mple.com",
        "\N{KELVIN SIGN}im@example.com",
        "x" * 250 + "@example.com",
        ["bob@example.com"],
        {"bob@example.com": True},
        7,
        None,
    ],
)
def test_what_is_no_address_of_that_domain_is_no_admins(email: object) -> None:
    assert not admitted(DOMAIN, email=email)
    assert not admitted(AdminRule(frozenset({"kim@example.com"})), email=email)


@pytest.mark.parametrize(
    "groups", [["bosses"], ["BOSS"], "my boss", {"boss": True}, [["boss"]], [{"boss": 1}], [None, 7], None, True]
)
def test_what_a_claim_only_nearly_says_makes_no_admin(groups: object) -> None:
    assert not admitted(BOSSES, groups=groups)


def test_without_a_rule_nobody_is_an_admin() -> None:
    assert not admitted(AdminRule(), groups=["boss"])
    assert not AdminRule().admits(Person("https://id.example", "x", None, "boss"))


@pytest.mark.parametrize("subject", [None, "", 7, ["x"], "x" * 256, "\N{SNOWMAN}", "a\nb", "a\0b"])
def test_who_has_no_subject_is_nobody(subject: object) -> None:
    with pytest.raises(InvalidRequest):
        person_of({**SAID, "sub": subject}, ANN)


def test_a_person_has_one_name_for_ever_and_no_other_person_has_it() -> None:
    ann = person_of(SAID, ANN)
    assert ann.id == person_of({**SAID, "email": "other@example.com"}, DOMAIN).id
    others = {ann.id, person_of({**SAID, "sub": "ann-2"}, ANN).id, person_of({**SAID, "iss": "https://b"}, ANN).id}
    assert len(others) == 3
    assert len(ann.id) == len("oidc_") + 16


def test_of_a_claim_only_what_matters_is_kept() -> None:
    person = person_of({**SAID, "groups": ["x", "llm-admin", "boss", "y"]}, BOSSES)
    assert person.held == "boss"
    assert person_of({**SAID, "groups": ["x"]}, BOSSES).held is None
    assert kept_person(json.loads(json.dumps(person.document()))) == person
    begun = Begun("s", "n", "v")
    assert Begun(**json.loads(json.dumps(begun.document()))) == begun


def test_a_claim_is_found_by_its_whole_name_or_by_the_way_to_it() -> None:
    said = {"a.b": 1, "a": {"b": 2, "c": {"d": 3}}, "e": [4]}
    found = [claim_of(said, name) for name in ("a.b", "a.c.d", "e", "a.x", "e.0", "x.y")]
    assert found == [1, 3, [4], None, None, None]


def test_a_challenge_is_that_of_the_specification() -> None:
    # RFC 7636, appendix B
    assert challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
