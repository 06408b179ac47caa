"""Tells the operator's receivers when a budget reaches its soft threshold: webhooks, signed, off the way of any call.

A notice is kept in the database before it is sent, so that a restart sends it. It may come twice, always under one id:
where the answer to it was lost, or the worker that sent it. What a process holds for the moment before it is kept is
lost with a process that is killed.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from gateway.core.rules import USD, Rule, amount_of, is_webhook
from gateway.core.webhooks import signature, signing_key
from gateway.http_client import ask
from gateway.secret import Secret
from gateway.storage.database import StorageError
from gateway.storage.notices import Notice, Notices

JSON = dict[str, Any]

log = logging.getLogger(__name__)

#: How long to wait after each try that was in vain: ten minutes in all, longer than a receiver takes to be deployed.
PAUSES_S = (2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 180.0, 180.0)
TIMEOUT_S = 5.0

_MOST_WAITING = 1_000
_LOOK_S = 30.0  # for notices of a worker that is gone
_RETRY_S = 2.0  # of a database that is away
_LEASE_S = 60.0  # a try takes far less, a slow name server included
_CLOSE_S = 2.0

#: Where clouds tell a machine its own credentials, besides the link-local addresses.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052, section 2.1


class Refused(OSError):
    """An address that no notice is sent to."""


class Notifier:
    """Delivers notices, in a thread of its own.

    Args:
        notices: where they are kept.
        secret: what they are signed with, as `core.webhooks.signing_key` reads it; None leaves them unsigned.
        pauses_s: how long to wait after each try that was in vain; after the last one a notice is given up.
        timeout_s: how long a try may take, besides the search for the receiver's address.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        notices: Notices,
        secret: Secret | None,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._notices = notices
        self._key = signing_key(secret.reveal()) if secret is not None else None
        self._pauses_s = tuple(pauses_s)
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting: deque[Notice] = deque()
        self._changed = threading.Condition()
        self._keeping = threading.Lock()
        self._warned = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to deliver, after the fork, also what others have left behind; safe to call again."""
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Keep what waits, and stop; safe to call again. What is not delivered is, by others or after a restart."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_S)
        if self._waiting and not self._keep():
            for notice in self._waiting:
                _log(logging.ERROR, "a notice is lost: it could not be kept", notice)

    def soft(self, rule: Rule, each: Sequence[str], used: int, most: int, period: tuple[float, float | None]) -> None:
        """Tell that a budget has reached its soft threshold. Never raises, and waits for nothing.

        Args:
            rule: the budget; where it names no webhook, nothing happens.
            each: for whom or what it is counted apart: a value for each of `rule.each`, in its order.
            used: what is spent of it, as `Rule.most` counts.
            most: what is allowed.
            period: when it began and when it ends, seconds since the epoch; None for never.
        """
        if rule.webhook is None:
            return
        if self._key is None and not self._warned:
            self._warned = True
            log.warning("notices are not signed: set GATEWAY_WEBHOOK_SECRET, and let receivers check")
        now_s = self._clock()
        id = f"msg_{secrets.token_hex(12)}"
        notice = Notice(id, rule.webhook, json.dumps(_document(id, rule, each, used, most, period, now_s)), now_s)
        with self._changed:
            full = len(self._waiting) >= _MOST_WAITING
            if not (full or self._closed):
                self._waiting.append(notice)
                self._changed.notify_all()
                return
        _log(logging.ERROR, f"a notice is lost: {'too many wait' if full else 'the gateway has stopped'}", notice)

    def _work(self) -> None:
        pause_s = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting), pause_s)
                if self._closed:
                    return
            if self._waiting and not self._keep():
                with self._changed:  # not at once again, though something waits
                    self._changed.wait_for(lambda: self._closed, _RETRY_S)
                continue
            pause_s = self._deliver()

    def _keep(self) -> bool:
        """Write down what waits, and say whether that could be done."""
        with self._keeping:
            new = list(self._waiting)
            try:
                self._notices.keep(new)
            except StorageError as error:
                log.warning("notices cannot be kept", extra={"fields": {"notices": len(new), "why": str(error)}})
                return False
            for _ in new:
                self._waiting.popleft()
            return True

    def _deliver(self) -> float:
        """Send what is due, and return how long to wait for the next one."""
        try:
            while not self._closed:
                due_s, now_s = self._notices.due_s(), self._clock()
                if due_s is None:
                    return _LOOK_S
                if due_s > now_s:
                    return min(due_s - now_s, _LOOK_S)
                notice = self._notices.claim(now_s, _LEASE_S)
                if notice is not None:
                    self._try(notice)
        except StorageError as error:
            log.warning("notices cannot be read", extra={"fields": {"why": str(error)}})
            return _RETRY_S
        return 0.0

    def _try(self, notice: Notice) -> None:
        try:
            status = self._send(notice)
        except (OSError, HTTPException, ValueError) as error:  # the last: a name that can be none
            why = str(error) if isinstance(error, Refused) else type(error).__name__
        else:
            if 200 <= status < 300:
                self._notices.forget(notice.id)
                return
            why = f"the answer is {status}"
        if notice.tries >= len(self._pauses_s):
            _log(logging.ERROR, "a notice is given up", notice, why)
            self._notices.forget(notice.id)
        else:
            self._notices.put_off(notice.id, self._clock() + self._pauses_s[notice.tries])
            _log(logging.WARNING, "a notice could not be delivered", notice, why)

    def _send(self, notice: Notice) -> int:
        body, now_s = notice.document.encode(), int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "llm-gateway",
            "webhook-id": notice.id,
            "webhook-timestamp": str(now_s),
        }
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, notice.id, now_s, body)
        return post(notice.address, body, headers, self._timeout_s)


def _document(
    id: str,
    rule: Rule,
    each: Sequence[str],
    used: int,
    most: int,
    period: tuple[float, float | None],
    now_s: float,
) -> JSON:
    unit = "usd" if rule.measure == USD else rule.measure
    return {
        "id": id,
        "type": "budget.soft_threshold",
        "at": now_s,
        "rule": {"id": rule.id, "name": rule.name, "measure": rule.measure, "soft": rule.soft},
        "subject": dict(zip(rule.each, each, strict=False)),
        f"used_{unit}": amount_of(rule.measure, used),
        f"most_{unit}": amount_of(rule.measure, most),
        "period": {"name": rule.period, "start": period[0], "end": period[1]},
    }


def post(address: str, body: bytes, headers: dict[str, str], timeout_s: float) -> int:
    """Send a POST to exactly there, and return the status of the answer, which is not read any further.

    The name is looked up once, what was found is checked, and the connection goes there: a name that means something
    else a moment later leads nowhere. There is no proxy on the way, and no redirect is followed.

    Args:
        address: as `core.rules.is_webhook` allows it.
        body: what is sent.
        headers: besides `Host` and `Content-Length`.
        timeout_s: for all of it but the search for the address.

    Raises:
        Refused: nothing is sent there.
        ValueError: its name can be none.
        OSError: it cannot be reached, or not in time.
        HTTPException: what it answers is no HTTP.
    """
    if not is_webhook(address):
        raise Refused("nothing is sent to such an address")
    plain = urlsplit(address).scheme == "http"

    def check(found: str) -> None:
        if is_refused(found, plain=plain):
            raise Refused("its name leads to an address that nothing is sent to")

    return ask("POST", address, body, headers, timeout_s=timeout_s, check=check).status


def is_refused(address: str, *, plain: bool) -> bool:
    """Whether nothing may be sent to an IP address.

    Args:
        address: as a name server tells it.
        plain: it would be sent without TLS, which only this machine gets.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        within = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(ip.packed[-4:]) if ip in _NAT64 else None)
        ip = within or ip
    if plain:
        return not ip.is_loopback
    return ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in _METADATA


def _log(level: int, message: str, notice: Notice, why: str | None = None) -> None:
    """Log what became of a notice, without what its address has besides the host: that is often a secret."""
    fields = {"notice": notice.id, "host": urlsplit(notice.address).hostname, "tries": notice.tries + 1, "why": why}
    log.log(
        level, "%s", message, extra={"fields": {name: value for name, value in fields.items() if value is not None}}
    )
