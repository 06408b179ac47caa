"""`docs/endpoints.md` says what the table of endpoints says.

`uv run python -m tests.house.test_endpoints_doc` writes it anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.endpoints import ENDPOINTS, Endpoint
from gateway.core.fields import Field
from gateway.upstream.bridge import Bridge

GUIDE = Path(__file__).resolve().parents[2] / "docs/endpoints.md"

HEAD = """\
# Endpoints

Made from the table that serves them (`gateway/core/endpoints.py`). Paths work with and without `/v1`. What a row does
not know is never refused: it travels in the body to a provider that speaks the same wire, and is left out for another,
which `x-gateway-dropped-params` and the trace name. Errors come in the dialect of the operation:
[errors.md](errors.md); what passes unchanged: [fidelity.md](fidelity.md).

**Natively** means that the caller's own body goes to the provider, with only `model` replaced, and the provider's
bytes come back. **By LiteLLM** means that LiteLLM dials: for providers of OpenAI's wire the bytes still pass as they
are, for others LiteLLM translates. **By a chat** means that the request is asked as a chat completion, of any provider,
and the answer told in the caller's wire; a stream is told as it comes.
"""

NOTES = {
    "chat": "Any provider that LiteLLM knows. `GATEWAY_RELAY` lets LiteLLM out of it where the provider takes OpenAI's "
    "wire as it is: [relay.md](relay.md).",
    "responses": "Streams end with `response.completed`, `response.incomplete` or `response.failed`. By a chat: "
    "functions, custom tools and namespaces of tools pass and come back under their own names; tools that OpenAI runs "
    "(`web_search`, `file_search`, …) are left out and named; `background`, `prompt`, images by `file_id` and files by "
    "URL are refused with `unsupported_parameter`, since the answer would be to another question.\n\n"
    "A response is stored unless `store` is false: by the provider that has responses of its own, else here, for "
    "`GATEWAY_STORED_RESPONSES_DAYS`. `previous_response_id`, ids in paths and `item_reference` find what the caller's "
    "own key has made, and nothing else: for all others 404. What is kept here can be gone on from with any model, "
    "what a provider keeps at that provider. Conversations (`conversation`) are not served.",
    "responses.input_tokens": "An estimate is made by OpenAI's tokenizer, over texts and tools; images count 85.",
    "responses.retrieve": "What a provider keeps is asked for there, also as a stream; what is kept here comes whole.",
    "responses.delete": "At the provider too, where it keeps the response.",
    "responses.cancel": "Only providers make responses in the background.",
    "responses.input_items": "`limit` 1 to 100, `order`, `after`. Of what is kept here, with what came before it.",
    "messages": "`x-api-key` and `Authorization: Bearer` alike; `anthropic-version`, `anthropic-beta` and `?beta=true` "
    "pass. By a chat: thinking comes back as thinking blocks where the model tells its reasoning; a thinking budget "
    "becomes `reasoning_effort`; tools that Anthropic runs, `cache_control` and file ids are left out and named. "
    "`message_start` has the tokens known by then, `message_delta` all.",
    "messages.count_tokens": "An estimate is made by OpenAI's tokenizer, over texts and tools; images count 85.",
    "completions": "By a chat: one prompt, as text; several, or tokens, are refused.",
    "embeddings": "`encoding_format: base64`, which OpenAI's SDKs ask for, is made here where the provider has floats "
    "alone. A trace keeps how many vectors there are, and how long.",
    "models": "OpenAI's list, or pages of Anthropic's (`limit`, `after_id`, `before_id`). Models of other modes than "
    "chat, responses, completion and embedding are left out.",
    "model": "Also one that is not listed, if it can be called.",
}

_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def guide() -> str:
    """The whole of `docs/endpoints.md`."""
    lines = [HEAD, "| method and path | dialect | streams | natively at | otherwise |", "|---|---|---|---|---|"]
    for row in ENDPOINTS:
        native = ", ".join(f"`{name}`" for name in sorted(row.native)) or "-"
        streams = "yes" if row.last_words or row.ends else "no"
        lines.append(f"| `{row.method} {row.path}` | {_dialect(row)} | {streams} | {native} | {_otherwise(row)} |")
    for row in ENDPOINTS:
        lines += ["", f"## {row.method} {row.path}", "", f"{row.summary}. {NOTES[row.name]}"]
        if row.query:
            lines += ["", f"Of the query these travel on: {', '.join(f'`{name}`' for name in row.query)}."]
        if row.parameters:
            lines += ["", "| parameter | what |", "|---|---|"]
            lines += [f"| `{name}` | {_what(field)} |" for name, field in row.parameters.items()]
    return "\n".join(lines) + "\n"


def _dialect(row: Endpoint) -> str:
    if row.name in ("models", "model"):
        return "the caller's"
    return "Anthropic" if row.dialect == "anthropic" else "OpenAI"


def _otherwise(row: Endpoint) -> str:
    if row.upstream:
        return f"by LiteLLM (`litellm.{row.upstream}`)"
    if Bridge.serves(row.name):
        return "by a chat"
    if row.by_id:
        return "what is kept here"
    return "an estimate" if row.native else "from the catalogue"


def _what(field: Field) -> str:
    kinds = " or ".join(_KINDS[kind] for kind in field.types)
    if field.items is not None:
        kinds += f" of {_KINDS[field.items]}s"
    bounds = [
        f"{word} {bound}" for word, bound in (("from", field.minimum), ("to", field.maximum)) if bound is not None
    ]
    more = ["required"] * field.required + ["not empty"] * field.non_empty
    return ", ".join([kinds, *([" ".join(bounds)] if bounds else []), *more])


def test_the_guide_says_what_the_table_says() -> None:
    assert GUIDE.read_text(encoding="utf-8") == guide(), "uv run python -m tests.house.test_endpoints_doc"


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.name)
def test_every_operation_has_its_notes_and_no_other_has(row: Endpoint) -> None:
    assert NOTES[row.name].endswith(".")
    assert set(NOTES) == {one.name for one in ENDPOINTS}


if __name__ == "__main__":
    GUIDE.write_text(guide(), encoding="utf-8")
