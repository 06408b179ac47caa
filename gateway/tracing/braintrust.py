"""Braintrust, as a place to deliver to: signs in, finds projects, posts rows.

The SDK's own delivery drops rows after three tries and at 25,000 in its queue, and has no way to say so. What is
spoken here is what it speaks (braintrust 0.48): `POST {app}/api/apikey/login`, `POST {api}/v1/project`,
`GET {api}/version`, `POST {api}/logs3`.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import httpx

from gateway.secret import Secret
from gateway.tracing.delivery import Piece, Rejected, TooLarge, Unavailable, Undelivered
from gateway.tracing.posting import TIMEOUT, content_of, is_page, line, retry_after_s, where, words

JSON = dict[str, Any]

_APP_URL = "https://www.braintrust.dev"
_API_VERSION = 2
#: The SDK's own default, for a server that does not say what it takes.
_LIMIT_BYTES = 6 << 20
_ENVELOPE_BYTES = 256
_MOST_PROJECTS = 1000


class Braintrust:
    """A destination (delivery.Destination).

    Args:
        api_key: Braintrust's.
        project: for rows that name no place; made when the first one comes, where it does not exist.
        app_url, api_url, org_name: as the SDK's own variables have them; None for its defaults.
    """

    def __init__(
        self,
        api_key: Secret,
        project: str,
        app_url: str | None = None,
        api_url: str | None = None,
        org_name: str | None = None,
    ) -> None:
        self._api_key = api_key
        self._project = project
        self._app_url = app_url or _APP_URL
        self._given_api_url = api_url
        self._org_name = org_name
        self._http: httpx.Client | None = None
        self._api_url: str | None = None
        self._org: str | None = None
        self._projects: OrderedDict[str, str] = OrderedDict()
        self._limit_bytes = _LIMIT_BYTES

    @property
    def limit_bytes(self) -> int:
        """What one POST may have (delivery.Destination)."""
        return self._limit_bytes

    def deliver(self, pieces: Sequence[Piece]) -> None:
        """Post rows (delivery.Destination)."""
        api_url = self._sign_in()
        to = pieces[0].to or {"project_name": self._project}
        own = to == {"project_name": self._project}
        place = self._place(api_url, to, "us" if own else "place")
        at_fault = "rows" if own else "place"
        around = json.dumps({**place, "_is_merge": False}, separators=(",", ":")).encode()
        if len(pieces) > 1 and sum(len(p.row) + len(around) for p in pieces) + _ENVELOPE_BYTES > self._limit_bytes:
            raise TooLarge("more than the server takes")  # it said so only when this process signed in
        rows = b",".join(b"%s,%s" % (around[:-1], piece.row[1:]) for piece in pieces)
        self._ask("POST", f"{api_url}/logs3", b'{"api_version":%d,"rows":[%s]}' % (_API_VERSION, rows), at_fault)

    def check(self) -> str:
        """Sign in, and find the project; for `gateway doctor`.

        Returns:
            The organisation's name.

        Raises:
            Unavailable: why not.
        """
        api_url = self._sign_in()
        self._place(api_url, {"project_name": self._project}, "us")
        return self._org or ""

    def close(self) -> None:
        """Close the connection (delivery.Destination)."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _sign_in(self) -> str:
        if self._api_url is not None:
            return self._api_url
        found = self._ask("POST", f"{self._app_url.rstrip('/')}/api/apikey/login", b"{}")
        told = found.get("org_info")
        orgs = [org for org in told if isinstance(org, dict)] if isinstance(told, list) else []
        org = next((org for org in orgs if self._org_name in (None, org.get("name"))), None)
        if org is None:
            names = line(", ".join(str(org.get("name")) for org in orgs)) or "none"
            raise Unavailable(f"the key belongs to no organisation {self._org_name!r} (to: {names})", refused=True)
        api_url = str(self._given_api_url or org.get("api_url") or "").rstrip("/")
        if not api_url:
            raise Unavailable("signing in gave no API address", refused=True)
        self._org = org.get("name")
        self._limit_bytes = self._limit_of(api_url)
        self._api_url = api_url
        return api_url

    def _limit_of(self, api_url: str) -> int:
        try:
            limit = self._ask("GET", f"{api_url}/version", None).get("logs3_payload_max_bytes")
        except Unavailable as error:
            if not error.refused:
                raise
            return _LIMIT_BYTES  # an older server has no such address
        return limit if type(limit) is int and limit > 0 else _LIMIT_BYTES

    def _place(self, api_url: str, to: JSON, at_fault: str) -> JSON:
        """The fields that say where a row belongs."""
        if (name := to.get("project_name")) is not None:
            return {"project_id": self._project_id(api_url, name, at_fault), "log_id": "g"}
        if "project_id" in to:
            return {"project_id": to["project_id"], "log_id": "g"}
        if "prompt_session_id" in to:
            return {"prompt_session_id": to["prompt_session_id"], "log_id": "x"}
        return {"experiment_id": to.get("experiment_id")}

    def _project_id(self, api_url: str, name: str, at_fault: str) -> str:
        if name in self._projects:
            self._projects.move_to_end(name)
            return self._projects[name]
        body = json.dumps({"name": name, "org_name": self._org}).encode()
        found = self._ask("POST", f"{api_url}/v1/project", body, at_fault).get("id")
        if not isinstance(found, str):
            raise Unavailable("asking for the project gave no id")
        self._projects[name] = found
        if len(self._projects) > _MOST_PROJECTS:
            self._projects.popitem(last=False)
        return found

    def _ask(self, method: str, url: str, body: bytes | None, at_fault: str = "us") -> JSON:
        """Send one request.

        `at_fault` says whom a refusal is about: `us` (the key, the address), `rows` (those that are posted), or
        `place`: a project or experiment that a caller named may not exist, and those rows are at fault then.
        """
        if self._http is None:
            self._http = httpx.Client(timeout=TIMEOUT, follow_redirects=False)
        headers = {
            "Authorization": f"Bearer {self._api_key.reveal()}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # a small answer could unpack to one that fills the memory
        }
        try:
            with self._http.stream(method, url, content=body, headers=headers) as answer:
                content = content_of(answer)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise Unavailable(f"{where(url)}: {type(error).__name__}") from error
        if not answer.is_success:
            raise self._refusal(answer, content or b"", url, at_fault)
        if content is None:
            raise Unavailable(f"{where(url)}: {answer.status_code} and an answer without end")
        if is_page(answer, content):  # of a proxy that wants a login, say: nothing was taken
            raise Unavailable(f"{where(url)}: {answer.status_code} and a web page", refused=True)
        try:
            found = json.loads(content) if content else {}
        except (ValueError, RecursionError):
            found = {}
        return found if isinstance(found, dict) else {}

    def _refusal(self, answer: httpx.Response, content: bytes, url: str, at_fault: str) -> Undelivered:
        status = answer.status_code
        why = f"{where(url)}: {status} {words(content, self._api_key)}".rstrip()
        if status in (408, 425, 429) or status >= 500:
            return Unavailable(why, retry_after_s=retry_after_s(answer.headers.get("retry-after")))
        if at_fault != "us" and status in (400, 422):
            return Rejected(why)
        if at_fault != "us" and status == 413:
            return TooLarge(why)
        if at_fault == "place" and status in (403, 404):
            return Rejected(why)
        self._api_url = None  # sign in anew: the key, the organisation or its address may have changed
        return Unavailable(why, refused=True)
