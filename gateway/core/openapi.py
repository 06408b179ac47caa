"""The OpenAPI document, made from the rows of `core/endpoints.py` and `core/operations.py`.

OpenAPI Specification 3.1.1, whose schemas are JSON Schema's draft 2020-12.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.answers import SCHEMAS
from gateway.core.endpoints import ENDPOINTS, Endpoint
from gateway.core.fields import Field
from gateway.core.operations import KNOWN, OPERATIONS, PUBLIC, Operation
from gateway.core.rights import CALL

JSON = dict[str, Any]

VERSION = "3.1.1"

_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    bytes: "string",
}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
_ABOUT = """\
An LLM gateway that traces every call. Paths under `/v1` are also served without it. A credential travels as
`Authorization: Bearer`, `x-api-key` or `api-key`. At Azure's paths the deployment is the model's name, and
`api-version` says nothing. What is answered on the wire of OpenAI or Anthropic is described by
their references; here stand the parameters that are checked."""

_MESSAGES = [{"role": "user", "content": "Say hello."}]
_CONTENT = "<the bytes of the file>"
_BODIES: Mapping[str, JSON] = {
    "chat": {"messages": _MESSAGES},
    "responses": {"input": "Say hello."},
    "responses.input_tokens": {"input": "Say hello."},
    "messages": {"max_tokens": 64, "messages": _MESSAGES},
    "messages.count_tokens": {"messages": _MESSAGES},
    "completions": {"prompt": "Say hello."},
    "embeddings": {"model": "openai/text-embedding-3-small", "input": "Say hello."},
    "preflight": {"model": "openai/gpt-4o-mini", "messages": _MESSAGES, "max_tokens": 64},
    "moderations": {"model": "openai/omni-moderation-latest", "input": "Say hello."},
    "rerank": {"model": "cohere/rerank-v3.5", "query": "hello", "documents": ["hello", "farewell"]},
    "images.generations": {"model": "openai/gpt-image-1", "prompt": "A lighthouse."},
    "images.edits": {"model": "openai/gpt-image-1", "prompt": "By night.", "image": _CONTENT},
    "images.variations": {"model": "openai/dall-e-2", "image": _CONTENT},
    "audio.transcriptions": {"model": "openai/whisper-1", "file": _CONTENT},
    "audio.translations": {"model": "openai/whisper-1", "file": _CONTENT},
    "audio.speech": {"model": "openai/tts-1", "input": "Hello.", "voice": "alloy"},
    "files": {"purpose": "batch", "file": _CONTENT},
    "batches": {"input_file_id": "file-abc", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    "keys.create": {"name": "checkout", "rights": {"models": ["openai/*"]}, "tags": ["checkout"]},
    "keys.change": {"disabled": True},
    "keys.rotate": {"overlap_s": 3600},
    "projects.create": {"name": "shop"},
    "projects.change": {"name": "shop-eu"},
    "users.create": {"name": "ann@example.com"},
    "users.change": {"disabled": True},
    "limits.create": {
        "name": "each key, a minute",
        "measure": "requests",
        "most": 60,
        "period": "minute",
        "match": {"model": "openai/*"},
        "each": ["key"],
    },
    "limits.change": {"most": 120},
    "budgets.create": {
        "name": "each project, a month",
        "measure": "usd",
        "most": "50",
        "period": "month",
        "each": ["project"],
        "soft": 0.8,
        "webhook": "https://hooks.example.com/budgets",
    },
    "budgets.change": {"most": "75.5"},
}


def document(release: str, operations: Iterable[Operation] = OPERATIONS) -> JSON:
    """Describe what is served.

    Args:
        release: of the gateway.
        operations: those of `OPERATIONS` that are served here.
    """
    paths: dict[str, JSON] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _of_endpoint(endpoint)
        if endpoint.azure:
            paths[endpoint.azure_path] = {endpoint.method.lower(): _of_endpoint(endpoint, azure=True)}
    for operation in operations:
        for number, path in enumerate((operation.path, *operation.others)):
            if not number or not _without_version(path, operation):
                described = _of_operation(operation, number)
                paths.setdefault(path, {})[operation.method.lower()] = described
    return {
        "openapi": VERSION,
        "info": {"title": "LLM gateway", "version": release, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": dict(SCHEMAS), "securitySchemes": dict(_SECURITY)},
    }


def schema_of(fields: Mapping[str, Field], *, closed: bool, clears: Iterable[str] = (), nulls: bool = True) -> JSON:
    """Return the JSON Schema of an object.

    Args:
        fields: what it may have.
        closed: nothing else may be in it.
        clears: fields that may be null.
        nulls: all others that are not required may be null too.
    """
    properties = {name: _schema(field, name in clears or nulls) for name, field in fields.items()}
    made: JSON = {"type": "object", "properties": properties}
    if required := [name for name, field in fields.items() if field.required]:
        made["required"] = required
    if closed:
        made["additionalProperties"] = False
    return made


def _without_version(path: str, operation: Operation) -> bool:
    return operation.path == f"/v1{path}"


def _schema(field: Field, null: bool) -> JSON:
    kinds = [_TYPES[kind] for kind in field.types] + (["null"] if null and not field.required else [])
    made: JSON = {"type": kinds if len(kinds) > 1 else kinds[0]}
    if bytes in field.types:
        made["contentMediaType"] = "application/octet-stream"
    if field.items is not None:
        made["items"] = {"type": _TYPES[field.items]}
    if field.minimum is not None:
        made["minimum"] = field.minimum
    if field.maximum is not None:
        made["maximum"] = field.maximum
    if field.non_empty:
        made |= {name: 1 for kind, name in ((str, "minLength"), (list, "minItems")) if kind in field.types}
    return made


def _of_endpoint(row: Endpoint, *, azure: bool = False) -> JSON:
    anthropic, name = row.dialect == "anthropic", row.name.replace(".", "_")
    path = row.azure_path if azure else row.path
    described: JSON = {
        "operationId": f"{name}_azure" if azure else name,
        "summary": row.summary,
        "tags": ["Azure" if azure else "Anthropic" if anthropic else "OpenAI"],
        "parameters": [*_path_parameters(path), *(_parameter(name, "query", {}) for name in row.query)],
        "responses": {
            "200": _answer(_content(row), "The answer, as the provider's reference describes it"),
            "default": _failure("AnthropicError" if anthropic else "Error"),
        },
        **_secured(CALL),
    }
    if row.parameters:
        example = {"model": "openai/gpt-4o-mini", **_BODIES[row.name]} if row.names_model else _BODIES[row.name]
        fields = row.parameters
        if azure:  # the path names the model
            fields = {name: field for name, field in fields.items() if name != "model"}
            example = {name: value for name, value in example.items() if name != "model"}
        schema = schema_of(fields, closed=False)
        described["requestBody"] = _body(schema, example, required=True, form=row.form)
    return described


def _content(row: Endpoint) -> JSON:
    if row.answer == "bytes":
        content: JSON = {"application/octet-stream": {}}
    else:
        content = {"application/json": {"schema": {"type": "object"}}}
    if row.answer == "either":
        content["text/plain"] = {"schema": {"type": "string"}}
    if row.ends or "stream" in {*row.parameters, *row.query}:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return content


def _of_operation(row: Operation, number: int) -> JSON:
    name = row.name.replace(".", "_")
    parameters = _path_parameters(row.path)
    parameters += [_parameter(query, "query", _schema(field, null=False)) for query, field in row.query.items()]
    if row.idempotent:
        parameters.append(_parameter("Idempotency-Key", "header", {"type": "string", "minLength": 1, "maxLength": 255}))
    content = {row.media_type: {"schema": {"$ref": f"#/components/schemas/{row.answer}"}}}
    if (example := _example_of(row.answer)) is not None:
        content[row.media_type]["example"] = example
    if row.sheet:
        content["text/csv"] = {"schema": {"type": "string"}}
    described: JSON = {
        "operationId": f"{name}_{number}" if number else name,
        "summary": row.summary,
        "tags": ["Managing" if row.path.startswith("/admin/") else "Gateway"],
        "parameters": parameters,
        "responses": {str(row.status): _answer(content, "Done"), "default": _failure("Error")},
        **_secured(row.needs),
    }
    if row.name == "keys.create":
        described["responses"]["200"] = _answer(content, "Made before, under this `Idempotency-Key`")
    if row.body is not None:
        schema = schema_of(row.body, closed=not row.open, clears=row.clears, nulls=False)
        described["requestBody"] = _body(schema, _BODIES[row.name], required="required" in schema)
    return described


def _example_of(answer: str) -> Any:
    return SCHEMAS[answer].get("examples", [None])[0]


def _secured(needs: str) -> JSON:
    if needs == PUBLIC:
        return {"security": []}
    said = "Any credential that is known" if needs == KNOWN else f"A credential with the scope `{needs}`"
    return {"security": [{name: []} for name in _SECURITY], "description": f"{said}."}


def _path_parameters(path: str) -> list[JSON]:
    return [_parameter("id", "path", {"type": "string", "minLength": 1})] if "{id}" in path else []


def _parameter(name: str, place: str, schema: JSON) -> JSON:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _body(schema: JSON, example: JSON, *, required: bool, form: bool = False) -> JSON:
    kind = "multipart/form-data" if form else "application/json"
    return {"required": required, "content": {kind: {"schema": schema, "example": example}}}


def _answer(content: JSON, description: str) -> JSON:
    return {"description": description, "content": content}


def _failure(shape: str) -> JSON:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
    return _answer(content, "Any failure; the status says of which kind")
