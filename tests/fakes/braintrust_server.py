"""The server side of what the Braintrust SDK (0.48) speaks: login, projects, rows, attachments."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable
from typing import Any, Literal

from tests.fakes.loopback import TICK_S, Exchange, Loopback, Received

Row = dict[str, Any]
Mode = Literal[
    "ok",
    "refuse_500",
    "unauthorized",
    "hang",
    "slow",
    "limited",
    "too_large",
    "reset",
    "lost_reply",
    "login_down",
    "bad_rows",
]

_FIRST_WINS = (
    "created",
    "span_id",
    "root_span_id",
    "span_parents",
    "_parent_id",
)  # of pieces merged into one row
_OBJECT_IDS = ("project_id", "experiment_id", "dataset_id", "prompt_session_id")
_NOT_STORED = ("_is_merge", "_merge_paths")
_API_VERSION = 2


class RefusedError(Exception):
    """A request that is not answered with 200."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class FakeBraintrust(Loopback):
    """Braintrust. Starts when made; `close()` it or use `with`.

    Attributes:
        mode: what it does with every request, free to change at any time. `ok`; `refuse_500`; `unauthorized`
            (401); `hang`: reads and never answers (the connection ends when the client leaves or the mode
            changes); `slow`: answers and stores after `slow_s`; `limited`: 429 with `Retry-After: 2`; `reset`:
            does it, and resets the connection in the middle of the reply; `lost_reply`: does it, and closes the
            connection without a reply. Or what it does with some: `login_down`: 500 for signing in; `too_large`:
            413 for a post of rows with more than one, or with more than `most_bytes`; `bad_rows`: 400 for a post
            of rows with `marker` in one of them.
        payload_max_bytes: what `/version` states; a larger body is refused with 413.
        attachments: by key: `filename`, `content_type`, `content` once uploaded and `status` once reported.
        slow_s, most_bytes, marker: see `mode`.
        refused: why requests were answered 4xx or 5xx, in order.
    """

    def __init__(self, api_key: str = "bt-test-key", *, payload_max_bytes: int = 6_000_000) -> None:
        self.mode: Mode = "ok"
        self.slow_s = 0.5
        self.most_bytes = payload_max_bytes
        self.marker = "a bad row"
        self.payload_max_bytes = payload_max_bytes
        self.attachments: dict[str, dict[str, Any]] = {}
        self.refused: list[str] = []
        self._api_key = api_key
        self._pieces: list[Row] = []
        self._rows: dict[str, Row] = {}
        self._projects: dict[str, str] = {}
        self._blobs: dict[str, bytes | None] = {}
        super().__init__()

    @property
    def url(self) -> str:
        """Where both its app and its API are."""
        return self.origin

    @property
    def posts(self) -> int:
        """How many POSTs to `/logs3` have come, however they were answered."""
        return sum(one.path == "/logs3" for one in self.requests())

    def environment(self) -> dict[str, str]:
        """Return the variables that send the SDK (and the gateway) here."""
        return {
            "BRAINTRUST_API_KEY": self._api_key,
            "BRAINTRUST_APP_URL": self.url,
            "BRAINTRUST_API_URL": self.url,
        }

    def pieces(self) -> list[Row]:
        """Return what was stored, row by row as it was posted, oldest first."""
        with self._changed:
            return copy.deepcopy(self._pieces)

    def rows(self) -> list[Row]:
        """Return the rows as a reader of Braintrust sees them: pieces of one `id` made into one row. To read only.

        A row is replaced when a piece of it comes, never changed, so nothing is copied: thousands may be here.
        """
        with self._changed:
            return list(self._rows.values())

    def roots(self) -> list[Row]:
        """Return the rows that have no parent."""
        return [row for row in self.rows() if not row.get("span_parents")]

    def children(self, root: Row) -> list[Row]:
        """Return the other rows of a root's trace."""
        trace = root["root_span_id"]
        return [row for row in self.rows() if row.get("root_span_id") == trace and row["id"] != root["id"]]

    def wait_rows(self, wanted: int | Callable[[list[Row]], object] = 1, timeout: float = 10.0) -> list[Row]:
        """Wait until there are `wanted` rows, or rows for which `wanted` holds, and return all rows.

        A row may still lack later pieces: to wait for ended spans, ask for `metrics.end`.

        Raises:
            TimeoutError: it did not come to that within `timeout` seconds.
        """
        holds = wanted if callable(wanted) else lambda rows: len(rows) >= wanted
        with self._changed:
            if not self._changed.wait_for(lambda: holds(list(self._rows.values())), timeout):
                raise TimeoutError(f"not within {timeout} s; {len(self._rows)} rows, refused: {self.refused}")
            return self.rows()

    def holds(self, wanted: Callable[[list[Row]], object]) -> bool:
        """Tell whether `wanted` holds for the rows, which are not copied for it."""
        with self._changed:
            return bool(wanted(list(self._rows.values())))

    def forget(self) -> None:
        """Lose the rows and requests so far; projects stay."""
        super().forget()
        with self._changed:
            self._pieces.clear()
            self._rows.clear()
            self.refused.clear()

    def project_name(self, project_id: str) -> str | None:
        """Return the name under which a project was registered."""
        return self._projects.get(project_id)

    def handle(self, exchange: Exchange) -> None:
        """Answer as `mode` says."""
        mode = self.mode
        match mode:
            case "hang":
                while self.mode == "hang":
                    exchange.wait(TICK_S)
                exchange.hang_up()
            case "slow":
                exchange.wait(self.slow_s)
        headers = {"Retry-After": "2"} if mode == "limited" else {}
        try:
            status, body = 200, self._answer(exchange.request)
        except RefusedError as refusal:
            status, body = refusal.status, {"error": str(refusal)}
            self.refused.append(f"{status}: {refusal}")
        match mode:
            case "lost_reply":
                exchange.hang_up()
            case "reset":
                exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
                exchange.reset()
        exchange.respond_json(status, body, headers)

    def _answer(self, request: Received) -> dict[str, Any]:
        path = request.path.partition("?")[0]
        if self.mode == "refuse_500" or (self.mode == "login_down" and path == "/api/apikey/login"):
            raise RefusedError(500, "out of order")
        if self.mode == "limited":
            raise RefusedError(429, "too many requests")
        if request.method == "PUT" and path.startswith("/blobs/"):
            self._keep_blob(path.rpartition("/")[2], request)
            return {}
        if self.mode == "unauthorized" or request.headers.get("authorization") != f"Bearer {self._api_key}":
            raise RefusedError(401, "invalid API key")
        if len(request.raw) > self.payload_max_bytes:
            raise RefusedError(413, f"{len(request.raw)} bytes are too many")
        if path == "/logs3":
            self._look_at_post(request)
        return self._dispatch(request.method, path, request.body if isinstance(request.body, dict) else {})

    def _dispatch(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        match method, path.strip("/").split("/"):
            case "POST", ["api", "apikey", "login"]:
                answer = {"org_info": [self._organization()]}
            case "POST", ["v1", "project"]:
                answer = self._project(body["name"])
            case "GET", ["v1", "project", known] if known in self._projects:
                answer = self._project(self._projects[known])
            case "GET", ["version"]:
                answer = {"version": "1.1.30", "logs3_payload_max_bytes": self.payload_max_bytes}
            case "POST", ["logs3"]:
                answer = {"ids": self._take_rows(body)}
            case "POST", ["logs3", "overflow"]:
                answer = {"method": "PUT", **self._sign(uuid.uuid4().hex)}
            case "POST", ["attachment"]:
                kept = {name: body[name] for name in ("filename", "content_type")}
                self.attachments[body["key"]] = kept
                answer = self._sign(body["key"])
            case "POST", ["attachment", "status"] if body["key"] in self.attachments:
                self.attachments[body["key"]]["status"] = body["status"]["upload_status"]
            case _:
                raise RefusedError(404, f"no {method} {path} here")
        return answer

    def _look_at_post(self, request: Received) -> None:
        """Refuse rows that the mode does not want."""
        rows = request.body.get("rows") if isinstance(request.body, dict) else None
        many = isinstance(rows, list) and len(rows) > 1
        if self.mode == "too_large" and (many or len(request.raw) > self.most_bytes):
            raise RefusedError(413, f"{len(request.raw)} bytes are too many")
        if self.mode == "bad_rows" and self.marker in json.dumps(rows, ensure_ascii=False):
            raise RefusedError(400, "a row is not acceptable")

    def _organization(self) -> dict[str, Any]:
        return {
            "id": "fake-org-id",
            "name": "fake-org",
            "api_url": self.url,
            "proxy_url": self.url,
            "realtime_url": None,
            "is_universal_api": True,
            "git_metadata": None,
        }

    def _project(self, name: str) -> dict[str, Any]:
        """Register a project, or find it again: the same name is the same id."""
        project_id = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
        self._projects[project_id] = name
        return {
            "id": project_id,
            "name": name,
            "org_id": "fake-org-id",
            "created": "2026-01-01T00:00:00.000Z",
        }

    def _sign(self, key: str) -> dict[str, Any]:
        """Hand out an address that takes one blob without a key, if the headers come back with it."""
        self._blobs[key] = None
        return {"signedUrl": f"{self.url}/blobs/{key}", "headers": {"x-fake-signature": key}, "key": key}

    def _keep_blob(self, key: str, request: Received) -> None:
        if key not in self._blobs or request.headers.get("x-fake-signature") != key:
            raise RefusedError(403, f"blob {key} is not signed")
        self._blobs[key] = request.raw
        if key in self.attachments:
            self.attachments[key]["content"] = request.raw

    def _take_rows(self, body: dict[str, Any]) -> list[str]:
        rows = body.get("rows")
        if isinstance(rows, dict) and rows.get("type") == "logs3_overflow":  # the body itself waits in a blob
            body = json.loads(self._blobs.get(rows["key"]) or b"{}")
            rows = body.get("rows")
        if fault := _fault(body, rows):
            raise RefusedError(400, fault)
        with self._changed:
            for row in rows or ():
                self._pieces.append(row)
                self._rows[row["id"]] = merged(self._rows.get(row["id"]), row)
            self._changed.notify_all()
        return [row["id"] for row in rows or ()]


def merged(row: Row | None, piece: Row) -> Row:
    """Return the row once a piece has come: replaced by it, or where it says `_is_merge` deep-merged with it.

    Tags are united; what `_merge_paths` names is replaced as a whole; the first piece is right about a row's
    place in its trace and its creation.
    """
    if row is None or not piece.get("_is_merge"):
        return {name: value for name, value in piece.items() if name not in _NOT_STORED}
    paths = {tuple(path) for path in piece.get("_merge_paths", ())}
    fresh = {
        name: value
        for name, value in piece.items()
        if name not in _NOT_STORED and not (name in _FIRST_WINS and name in row)
    }
    return _deep_merged(row, fresh, (), paths)


def _deep_merged(old: Row, new: Row, path: tuple[str, ...], whole: set[tuple[str, ...]]) -> Row:
    result = dict(old)
    for name, value in new.items():
        here, was = (*path, name), old.get(name)
        if isinstance(was, dict) and isinstance(value, dict) and here not in whole:
            result[name] = _deep_merged(was, value, here, whole)
        elif here == ("tags",) and isinstance(was, list) and isinstance(value, list) and here not in whole:
            result[name] = [*was, *(tag for tag in value if tag not in was)]
        else:
            result[name] = value
    return result


def _fault(body: dict[str, Any], rows: Any) -> str | None:
    """Say what is wrong with a post of rows; None where nothing is."""
    if body.get("api_version") != _API_VERSION:
        return f"api_version must be {_API_VERSION}"
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return "rows must be a list of objects"
    ids = [row.get("id") for row in rows]
    if not all(isinstance(one, str) and one for one in ids):
        return "a row has no id"
    if len(set(ids)) < len(ids):
        return "an id comes twice in one post"  # which of the two is the later could not be told
    if not all(any(row.get(name) for name in _OBJECT_IDS) for row in rows):
        return "a row belongs to no project, experiment or dataset"
    return None
