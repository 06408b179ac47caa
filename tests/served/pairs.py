"""Both workers of a gateway that has two."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.served.process import Served

_CONNECTIONS = 24


@contextlib.contextmanager
def at_both(pair: Served) -> Iterator[list[httpx.Client]]:
    """Connections that are kept, some to each worker."""
    with contextlib.ExitStack() as stack:
        clients: list[httpx.Client] = []
        for _ in range(10):
            for _ in range(_CONNECTIONS):
                clients.append(stack.enter_context(httpx.Client(base_url=pair.url, timeout=30)))
                clients[-1].get("/health").raise_for_status()
            if all(_connections(pair, worker) >= 2 for worker in pair.workers()):
                break
        else:
            pytest.fail("one worker took every connection")
        yield clients


def _connections(pair: Served, worker: psutil.Process) -> int:
    """How many callers' connections a worker has."""
    found = worker.net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == pair.port for one in found)
