"""The OpenAPI document: valid by the specification, and its examples by its own schemas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.core import openapi
from gateway.core.answers import SCHEMAS
from gateway.core.body import check
from gateway.core.endpoints import CHAT, ENDPOINTS
from gateway.core.fields import Field
from gateway.core.operations import MANAGING, OPERATIONS, SPENDING, check_body
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

DOCUMENT = openapi.document("1.2.3")


def validator(schema: Any, document: JSON = DOCUMENT) -> Draft202012Validator:
    """What checks a value by a schema of the document, which may name others of it."""
    return Draft202012Validator({**schema, "components": document["components"]})


def described() -> Iterator[tuple[str, JSON]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, said in methods.items():
            yield f"{method.upper()} {path}", said


def test_it_is_valid_by_the_specification() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


@pytest.mark.parametrize(
    "broken",
    [
        {"openapi": "3.1.1", "info": {}, "paths": {}},
        {**DOCUMENT, "paths": {"/a/{id}": {"get": {"responses": {"200": {"description": "a"}}}}}},
        {**DOCUMENT, "components": {"schemas": {**SCHEMAS, "A": {"type": "text"}}}},
    ],
    ids=["no title", "a parameter that is not described", "a type that is none"],
)
def test_the_validator_sees_what_is_not(broken: JSON) -> None:
    assert not OpenAPIV31SpecValidator(broken).is_valid()


def test_every_row_stands_in_it_once() -> None:
    rows = {f"{row.method} {row.path}" for row in (*ENDPOINTS, *OPERATIONS)}
    others = {f"{row.method} {path}" for row in OPERATIONS for path in row.others if path.startswith("/health")}
    azure = {f"{row.method} {row.azure_path}" for row in ENDPOINTS if row.azure}
    assert {name for name, _ in described()} == rows | others | azure
    ids = [said["operationId"] for _, said in described()]
    assert len(ids) == len(set(ids))


def test_it_says_which_release_it_is_of_and_leaves_out_what_is_not_served() -> None:
    fewer = openapi.document("9", [row for row in OPERATIONS if row not in (*MANAGING, *SPENDING)])
    assert fewer["info"]["version"] == "9"
    assert not [path for path in fewer["paths"] if path.startswith("/admin")]
    OpenAPIV31SpecValidator(fewer).validate()


@pytest.mark.parametrize("name", [name for name, shape in SCHEMAS.items() if "examples" in shape])
def test_every_example_of_an_answer_is_one(name: str) -> None:
    for example in SCHEMAS[name]["examples"]:
        validator(SCHEMAS[name]).validate(example)


def test_every_json_answer_of_the_gateways_own_has_an_example_but_for_this_document_and_the_root() -> None:
    without = {row.answer for row in OPERATIONS if "examples" not in SCHEMAS[row.answer]}
    assert without == {"OpenAPI", "Root", "Text"}


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.name)
def test_the_example_of_an_endpoints_body_is_taken(row: Any) -> None:
    said = DOCUMENT["paths"][row.path][row.method.lower()]
    assert ("requestBody" in said) is bool(row.parameters)
    if row.parameters:
        content = said["requestBody"]["content"]["multipart/form-data" if row.form else "application/json"]
        validator(content["schema"]).validate(content["example"])
        texts = {name: field for name, field in row.parameters.items() if bytes not in field.types}
        check(replace(row, parameters=texts), content["example"])


@pytest.mark.parametrize("row", [row for row in ENDPOINTS if row.azure], ids=lambda row: row.name)
def test_at_azures_path_the_body_names_no_model(row: Any) -> None:
    said = DOCUMENT["paths"][row.azure_path][row.method.lower()]
    content = said["requestBody"]["content"]["multipart/form-data" if row.form else "application/json"]
    assert "model" in row.parameters
    assert "model" not in content["schema"]["properties"]
    validator(content["schema"]).validate(content["example"])
    assert [one["name"] for one in said["parameters"] if one["in"] == "path"] == ["id"]


@pytest.mark.parametrize("row", [row for row in OPERATIONS if row.body is not None], ids=lambda row: row.name)
def test_a_body_is_what_schema_and_check_agree_on(row: Any) -> None:
    content = DOCUMENT["paths"][row.path][row.method.lower()]["requestBody"]["content"]["application/json"]
    values: list[Any] = [None, True, 0, 1.5, "", "a", [], ["a"], [1], {}]
    bodies = [content["example"], {}, {"nobody": 1}]
    bodies += [{**content["example"], name: value} for name in row.body for value in values]
    for body in bodies:
        schema_says = validator(content["schema"]).is_valid(body)
        try:
            check_body(row, body)
        except InvalidRequest:
            assert not schema_says, body
        else:
            assert schema_says, body
    assert validator(content["schema"]).is_valid(content["example"])


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (Field((int,), minimum=1, maximum=3), [1, 3, None], [0, 4, "1", 1.5, True]),
        (Field((str,), required=True, non_empty=True), ["a"], [None, ""]),
        (Field((str, list), items=str), ["a", ["a"], []], [[1], 1]),
        (Field((float,)), [1, 1.5, None], ["1", True]),
    ],
)
def test_a_field_becomes_a_schema(field: Field, good: list[Any], bad: list[Any]) -> None:
    checked = validator(openapi.schema_of({"a": field}, closed=True))
    for value in good:
        checked.validate({"a": value})
    for value in bad:
        with pytest.raises(ValidationError):
            checked.validate({"a": value})
    assert checked.is_valid({}) is not field.required
    assert not checked.is_valid({"a": good[0], "b": 1})


def test_a_chats_unknown_parameters_are_data() -> None:
    schema = DOCUMENT["paths"][CHAT.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert validator(schema).is_valid({"model": "m", "messages": [{}], "anything": 1})
    assert not validator(schema).is_valid({"model": "m", "messages": []})


def test_what_needs_no_credential_says_so_and_all_else_names_the_three_ways() -> None:
    for name, said in described():
        public = name.split()[1] in ("/", "/health", "/health/readiness", "/health/liveness", "/health/liveliness")
        assert said["security"] == ([] if public else [{"bearer": []}, {"x-api-key": []}, {"api-key": []}])
