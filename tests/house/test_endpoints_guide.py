"""`docs/endpoints.md` is made from the two tables of what is served, and from the notes beside them here.

`uv run python tests/house/test_endpoints_guide.py` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.calls import Deployment
from gateway.core.endpoints import CHAT, COUNT_TOKENS, ENDPOINTS, INPUT_TOKENS, RESPONSE, RESPONSES, Endpoint
from gateway.core.fields import Field
from gateway.core.multipart import MOST_HEAD_BYTES, MOST_PARTS, MOST_TEXT_BYTES
from gateway.core.operations import KNOWN, OPERATIONS, PUBLIC, Operation
from gateway.core.providers import OPENAI_WIRE, SAME_WIRE
from gateway.upstream.bridge import Bridge
from gateway.upstream.counting import Counting

GUIDE = Path(__file__).resolve().parents[2] / "docs/endpoints.md"

TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", bytes: "file"}

HEAD = """\
# Operations

<!-- made by tests/house/test_endpoints_guide.py from gateway/core/endpoints.py and operations.py: change those -->

Each path is served with and without `/v1`; those that [Azure's clients](clients.md#azure) ask for, besides, at Azure's
path of a deployment. A key travels as `Authorization: Bearer`, `x-api-key` or `api-key`, on each.
`model` is a name as the [README](../README.md#call-real-models) says. Which way a call takes depends on its provider:

- **natively**: the provider has the operation, and is asked for it with your own body ([what that means](fidelity.md));
- **by LiteLLM**: its function of that kind translates where it has to;
- **a chat stands in**: your request becomes a chat completion, and its answer an answer of the operation. What a chat
  cannot carry is left out and named in `x-gateway-dropped-params`, or refused with 400 where leaving it out would
  change what was asked.

"""

BODIES = """\

**Bodies.** Known parameters are checked as the tables below say: their JSON types, and bounds where there are any. A
boolean is no integer, an integer is a number, and `null` stands for a parameter that is not there. Every other range is
the provider's to judge. A parameter that no table has is never refused: it travels on in the body where the provider is
asked on its own wire, and is dropped and named in `x-gateway-dropped-params` where it is not.

**Errors** look as the column says: OpenAI's object or Anthropic's. [errors.md](errors.md) has both, and what each kind
of stream says when it breaks off.

"""

OWN = """\
## The gateway's own

Answered with no call, and described field by field in `/openapi.json`. [keys.md](keys.md) says how keys are managed,
[limits.md](limits.md) how limits and budgets are.

- **Bodies** are JSON of 1 MiB at most. A field that is not known is 400 and named, and so is a name in the query.
  `null` takes `expires`, `soft` and `webhook` away and is refused elsewhere. All times are seconds since the epoch.
- **Lists** have `data`, `has_more` and `next`: what to send as `after` for the page behind it. `limit` is 1 to 200, and
  50 where nothing is said.
- **Usage** is also answered as CSV, by `format=csv` or `Accept: text/csv`; there `limit` goes to 1000.
  [usage.md](usage.md) says what the fields mean.
- **Making something** may be named by an `Idempotency-Key` of 1 to 255 characters; the same request again returns what
  was made, and another one under that name is 409 `conflict`.
- **While the database is away** they are 503 `store_unavailable`, with `Retry-After`.

"""

FORM_RULES = f"""\
**The body** is `multipart/form-data` of up to `GATEWAY_MAX_UPLOAD_MB`. It goes to the provider as it comes, and waits
  on disk, not in memory; only `model` is changed. Where `model` stands behind the file, the form is read to its end
  first. At most {MOST_PARTS} parts, {MOST_HEAD_BYTES >> 10} KB of header each, and {MOST_TEXT_BYTES >> 20} MB of fields
  besides the files; a parameter that comes twice is 400, and so is what two readers could understand differently."""
FORM = f"""\
- {FORM_RULES}
- By LiteLLM the files are in memory, so there it is 413 beyond `GATEWAY_MAX_BODY_MB`."""

NOTES: dict[str, str] = {
    CHAT.name: f"""\
- {len(SAME_WIRE)} providers get your body as it came, {len(OPENAI_WIRE)} give their own bytes back; for the others
  LiteLLM translates. [fidelity.md](fidelity.md) has it in full.
- Parameters that the provider does not know are dropped and named.""",
    RESPONSES.name: """\
- **Natively**, your body goes out with `model` alone changed, and the provider's events come back as they are, but for
  comments and errors. Azure by Entra, without a key, is asked for a chat.
- **A chat stands in**: `instructions` and developers' messages become the system's, custom tools become functions of
  one string and tools in a namespace functions with both names (the answer has them as you sent them),
  `text.format` becomes `response_format`, `reasoning.effort` `reasoning_effort`, `max_output_tokens`
  `max_completion_tokens`. Reasoning items of earlier turns are left out, without a word.
- **Dropped and named**: tools that OpenAI runs (`tools.web_search`, …) and what they left in the input
  (`input.web_search_call`), `include` but for log probabilities, `max_tool_calls`, `truncation: auto`,
  `context_management`, `client_metadata`, `moderation`, parts of `text` and `reasoning` that chats do not have.
- **Refused, 400 `unsupported_parameter`**: `background`, `prompt`, images by `file_id`, files by `file_url`, items of
  any other kind.
- **`conversation`** is 404 at every provider: none is made here, so none is yours.
- **Stored** unless `store` is false. A native response stays at its provider; the gateway notes whose it and the items
  of its output are. Where a chat stood in, the gateway keeps the response itself, with what was asked
  ([how long](operations.md#the-stores)); with `GATEWAY_STORED_RESPONSES_DAYS=0` it keeps none, and the answer has
  `"store": false`. Where the store does not answer you still get your answer; the log says that it was not stored.
- **`previous_response_id`** has to be one of yours, else it is 404 `not_found`. Any model can go on from a response
  that the gateway keeps, also another provider's; from one at a provider, that provider's models alone.
- **Items by reference** (`item_reference`) have to come from a response of yours.""",
    INPUT_TOKENS.name: """\
- **Counted natively** where the table says so. Elsewhere an estimate: the tokens of all texts, tools and schemas by a
  tokenizer that LiteLLM brings along, 3 for each message and for the answer's head, 85 for an image. The demo's
  tokens are words.
- Nothing is generated and nothing stored. `previous_response_id` is looked up as above.""",
    RESPONSE.name: """\
- Only the caller that made it finds it; for anybody else, and once it has been deleted or its time is over, it is 404
  `not_found`. Where the store does not answer it is 503 `store_unavailable`.
- What one with `background` has used is billed to the call that first sees it ended, be it this, a cancellation, or the
  stream that made it: where nobody asks, it is not.
- What a provider keeps is asked of that provider, with `stream` and `starting_after` too; what the gateway keeps comes
  from its database, and cannot be streamed again (400).""",
    "responses.delete": """\
- The provider's answer, or the gateway's own; after it nobody finds the response.""",
    "responses.cancel": """\
- Its provider's answer. What the gateway keeps was never made in the background: 400.""",
    "responses.input_items": """\
- Its provider's answer; or, of what the gateway keeps, pages of 20 items (`limit`, 1 to 100), the newest first
  (`order=asc` for the oldest), after the item that `after` names.""",
    "messages": """\
- **Natively**, your body goes out with `model` alone changed; `anthropic-version` (2023-06-01 where you send none),
  `anthropic-beta` and `?beta=true` go along. The provider's events come back as they are, but for comments and errors.
- **A chat stands in**: `system` becomes a message, tool results become tool messages, images and PDFs data URLs (images
  by address stay addresses), `stop_sequences` `stop`, `max_tokens` `max_completion_tokens`, `thinking` with a budget
  or `output_config.effort` `reasoning_effort` (from 2048 tokens `medium`, from 4096 `high`), a schema for the answer
  `response_format`, `metadata.user_id` `user`. The answer's reasoning comes back as `thinking` blocks.
- Names of tools beyond 64 characters are cut and get a hash for their end; the answer has yours.
- **Dropped and named**: `cache_control` and earlier thinking (but for Claude models at Bedrock, Vertex, Azure and
  Databricks, where both go along), `mcp_servers`, `container`, `context_management`, tools that Anthropic runs or
  defines (`tools.web_search`), blocks that only Anthropic can read (`messages.redacted_thinking`), files by id. For
  OpenAI itself also `top_k`, and `reasoning_effort` for models that do not reason.
- Nothing is stored.""",
    COUNT_TOKENS.name: """\
- **Counted natively** at Anthropic. Elsewhere an estimate, made as for `POST /v1/responses/input_tokens`.""",
    "completions": """\
- **Natively**, your body goes out with `model` changed, and in streams `stream_options.include_usage`; the chunk with
  the usage comes to you only if you asked for it.
- **A chat stands in** with the prompt as its only message. It has to be one text: several prompts and token arrays are
  400 `unsupported_parameter`. `best_of`, `echo` and `suffix` are dropped and named.""",
    "embeddings": """\
- `input` is a text, a list of texts, a token array or a list of those: whether it takes them is the provider's to say.
  `base64` is made by the gateway where LiteLLM translates.
- A provider without embeddings is 400 `unsupported`.
- A trace keeps how many vectors there are and how long, not the vectors.""",
    "moderations": """\
- `model` is `omni-moderation-latest` where you name none, and the answer is the provider's. LiteLLM's
  function speaks OpenAI's wire alone, so elsewhere it is 400 `unsupported`.""",
    "rerank": """\
- **Natively** where the server has `/rerank`; Cohere, Azure AI, DeepInfra, Bedrock, Vertex and others by LiteLLM.
- `documents` is a list of texts, or of objects where the provider takes those.
- Its trace has the query, the documents and the order; billed are the searches or the tokens that the provider
  tells.""",
    "images.generations": """\
- `model` is `gpt-image-1` where you name none. With `"stream": true` partial pictures come as events where the
  provider streams; by LiteLLM it is 400 `unsupported_parameter`.
- Its trace has the prompt, and of each picture size, type and SHA-256, or its address.""",
    "images.edits": f"""\
{FORM}
- Several pictures come as `image[]`, or as `image` several times.""",
    "images.variations": f"""\
{FORM}
- `model` is `openai/dall-e-2` where you name none. Where the table has no provider it is 400 `unsupported`.""",
    "audio.transcriptions": f"""\
{FORM}
- The answer is as the provider gave it: JSON, text, subtitles, or events with `stream`.
- Its trace has the text that was heard, and of the recording size, type and SHA-256; billed are the tokens or the
  seconds that the provider tells. Of a plain text nobody tells them, so it has no cost.""",
    "audio.translations": """\
- As a transcription, where the provider has it; LiteLLM has no translation, so elsewhere it is 400 `unsupported`.""",
    "audio.speech": """\
- The audio is passed on as it is made, with the provider's type. It has no `Content-Length`: its end comes once the
  call is settled. Where the provider fails in mid-stream the body is cut off without its end.
- With `"stream_format": "sse"` events come. By LiteLLM the audio comes in one piece.
- Its trace has the text, and size, type and SHA-256 of the audio; billed are the characters, or the tokens where the
  provider tells them.""",
    "files": f"""\
- {FORM_RULES}
- No model is named. The file goes to `openai`, or to the provider that `?model=` says: `?model=azure/files`. Rights and
  routes know that name as they know a model's: a key that may call only some models needs `openai/files` among them,
  and with it may have a batch run on any model there.
- Whose a file is stands in the gateway's database; for another tenant it is 404, also where a prompt names it by its
  id for a model of `openai`, `azure` or `litellm_proxy` to read. Where the store does not answer it is
  503, and the file that the provider has taken by then is nobody's.""",
    "files.list": """\
- The provider's list, of which those of other tenants are left out: up to 10 of its pages are looked through.
- `?model=` as for `POST /v1/files`.""",
    "files.retrieve": """\
- Its provider's answer. For another tenant, and for what was not uploaded here, it is 404 `not_found`.""",
    "files.content": """\
- Passed on as it comes, whatever its size; its trace has size, type and SHA-256.""",
    "files.delete": """\
- Its provider's answer; after it nobody finds the file.""",
    "batches": """\
- `input_file_id` has to be a file of yours; the batch runs where that file is. The models in its lines are the
  provider's own names, and go as they are.
- The files that it makes are yours too, once you have asked for the ended batch by its id; a list names them before.
- Under a budget something has to be left of it. What the batch will use is not known, and not reserved.""",
    "batches.list": """\
- As the list of files: the provider's, without those of others.""",
    "batches.retrieve": """\
- Its provider's answer, with the counts in it. What the batch has used is billed, at its model's price, to the call
  that first sees it ended: where a provider tells no usage, or nobody asks, it is not.""",
    "batches.cancel": """\
- Its provider's answer.""",
    "models": """\
- The models in LiteLLM's map whose provider has a credential or an address here, and the demo's. The catalogue is open:
  models that are not listed, such as those of your own servers, can be called all the same.
- `created` is 0 (`created_at` 1970): no map says when a model was made.
- In Anthropic's shape, pages of 20 (`limit`, 1 to 1000) with `after_id` and `before_id`.""",
    "model": """\
- It need not be listed. 404 `model_not_found` where no provider answers to the name, 503 `provider_not_configured`
  where one would, were it set up.""",
}


def guide() -> str:
    """Write the whole guide."""
    rows = "\n".join(map(_line, ENDPOINTS))
    head = "| operation | errors | streamed | natively at | elsewhere | its trace: root, span below |"
    table = f"{head}\n|---|---|---|---|---|---|\n"
    return HEAD + table + rows + "\n" + BODIES + "\n".join(map(_section, ENDPOINTS)) + "\n" + OWN + own()


def own() -> str:
    """The table of what is answered with no call."""
    lines = [f"| `{row.method} {row.path}` | {row.summary} | {needs(row)} | {takes(row)} |" for row in OPERATIONS]
    return "| request | what | needs | takes |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"


def needs(row: Operation) -> str:
    """What a credential has to be."""
    return {PUBLIC: "nothing", KNOWN: "any key"}.get(row.needs, f"scope `{row.needs}`")


def takes(row: Operation) -> str:
    """The fields of its body, those that it cannot do without first, or of its query."""
    fields = row.body if row.body is not None else row.query
    named = [f"`{name}`{' (required)' if field.required else ''}" for name, field in fields.items()]
    return ", ".join(named)


def _line(row: Endpoint) -> str:
    streamed = "yes" if row.ends or row.answer == "bytes" or "stream" in {*row.parameters, *row.query} else "no"
    dialect = "Anthropic's" if row.dialect == "anthropic" else "OpenAI's"
    if not (row.native or row.upstream):  # answered by the gateway
        return (
            f"| [`{row.method} {row.path}`](#{_anchor(row)}) | by `anthropic-version` | no | - | the gateway | none |"
        )
    native = ", ".join(sorted(row.native)) or "-"
    trace = f"`{row.name} <model>`, `{row.span}` ({row.span_kind})"
    cells = (f"[`{row.method} {row.path}`](#{_anchor(row)})", dialect, streamed, native, _elsewhere(row), trace)
    return f"| {' | '.join(cells)} |"


def _anchor(row: Endpoint) -> str:
    """The place of a section, as GitHub makes it of a heading."""
    return "".join(sign for sign in _heading(row).lower().replace(" ", "-") if sign.isalnum() or sign in "-_")


def _heading(row: Endpoint) -> str:
    return f"`{row.method} {row.path}`"


def _elsewhere(row: Endpoint) -> str:
    if row.upstream:
        return f"LiteLLM's `{row.upstream}`"
    if Bridge.serves(row.name):
        return "a chat (its span: `Completion`)"
    if Counting(lambda _deployment, _text: 0).serves(row, Deployment("any", "model")):
        return "an estimate"
    return "what the gateway keeps" if row.by_id and row.kind == "response" else "-"


def _section(row: Endpoint) -> str:
    parts = [f"## {_heading(row)}\n\n{row.summary}.\n"]
    if row.parameters:
        parts.append(_parameters(row))
    if row.query:
        parts.append(f"In the query: {', '.join(f'`{name}`' for name in row.query)}.\n")
    parts.append(NOTES[row.name] + "\n")
    return "\n".join(parts)


def _parameters(row: Endpoint) -> str:
    for other in ENDPOINTS:
        less = other.parameters.keys() - row.parameters.keys()
        if less and row.parameters == {name: field for name, field in other.parameters.items() if name not in less}:
            without = ", ".join(f"`{name}`" for name in sorted(less))
            return f"Parameters: those of [`{other.method} {other.path}`](#{_anchor(other)}) without {without}.\n"
    lines = [f"| `{name}` | {kinds(field)} | {bounds(field)} |" for name, field in row.parameters.items()]
    return "| parameter | type | bounds |\n|---|---|---|\n" + "\n".join(lines) + "\n"


def kinds(field: Field) -> str:
    """The types that a parameter may have."""
    items = f" of {TYPES[field.items]}s" if field.items is not None else ""
    return " or ".join(TYPES[kind] + (items if kind is list else "") for kind in field.types)


def bounds(field: Field) -> str:
    """What else is asked of it."""
    return ", ".join(_bounds(field))


def _bounds(field: Field) -> Iterator[str]:
    if field.required:
        yield "required"
    if field.non_empty:
        yield "not empty"
    if field.minimum is not None and field.maximum is not None:
        yield f"{field.minimum} to {field.maximum}"
    elif field.minimum is not None:
        yield f"at least {field.minimum}"
    elif field.maximum is not None:
        yield f"at most {field.maximum}"


def test_the_guide_is_made_from_the_rows() -> None:
    command = "run: uv run python tests/house/test_endpoints_guide.py"
    assert GUIDE.read_text(encoding="utf-8") == guide(), command


def test_what_the_gateway_answers_itself_is_told_by_what_it_needs_and_takes() -> None:
    table = own()
    assert "| `POST /admin/v1/projects` | Make a project | scope `admin` | `name` (required) |" in table
    assert "| `GET /health` | Is it alive | nothing |  |" in table
    assert len(table.splitlines()) == 2 + len(OPERATIONS)


def test_every_operation_has_notes_and_nothing_else_has() -> None:
    assert set(NOTES) == {row.name for row in ENDPOINTS}


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (Field((int,), minimum=1, maximum=128), ("integer", "1 to 128")),
        (Field((int,), minimum=1), ("integer", "at least 1")),
        (Field((float,), maximum=2), ("number", "at most 2")),
        (Field((str, list), required=True, non_empty=True), ("string or array", "required, not empty")),
        (Field((list,), items=dict), ("array of objects", "")),
    ],
)
def test_a_parameter_is_told_by_its_types_and_bounds(field: Field, said: tuple[str, str]) -> None:
    assert (kinds(field), bounds(field)) == said


def test_an_operation_with_the_parameters_of_another_one_says_so() -> None:
    assert "without `store`, `stream`" in _section(INPUT_TOKENS)
    assert "| `temperature` | number |  |" in _section(RESPONSES)


def test_every_link_within_the_guide_leads_to_a_section() -> None:
    headings = {_anchor(row) for row in ENDPOINTS}
    assert len(headings) == len(ENDPOINTS)
    assert all(f"(#{heading})" in guide() for heading in headings)


if __name__ == "__main__":
    GUIDE.write_text(guide(), encoding="utf-8")
