"""Modal's own bridge from ASGI to WSGI, served over real HTTP on this machine: what a deployment runs.

Modal's edge hands each request to the container as an ASGI scope, and its body as messages that the container
asks for. Here a small aiohttp server plays the edge. What stands between it and the app is Modal's code,
unchanged: `wsgi_app_wrapper` and the a2wsgi under it, with a thread for each request and a send queue of one.

Like the edge, it cancels a request whose client has left. Modal's bridge then never comes back to the thread
that runs the app; `close()` of this server sets such threads free.
"""

import asyncio
import itertools
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any

from aiohttp import web
from modal._runtime.asgi import wsgi_app_wrapper
from modal._runtime.execution_context import _set_current_context_ids

# They end at a hop. Without them the app cannot tell that a body comes in chunks, only that it has no length.
HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}


class _DataIn:
    """`container_io_manager.get_data_in`: the messages of a request, by the id of its function call."""

    def __init__(self) -> None:
        self.requests: dict[str, web.Request] = {}

    async def aio(self, function_call_id: str, attempt_token: str) -> AsyncGenerator[dict[str, Any]]:
        """Give the body as it comes in, piece by piece."""
        content = self.requests[function_call_id].content
        async for piece in content.iter_any():
            yield {"type": "http.request", "body": piece, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}


class _ContainerIO:
    """The one part of Modal's container that the bridge asks for anything."""

    def __init__(self) -> None:
        self.get_data_in = _DataIn()


class _Counted:
    """The chunks of an app, and what to do when it is done with them."""

    def __init__(self, chunks: Iterable[bytes], done: Callable[[], None]) -> None:
        self._chunks = chunks
        self._done = done

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        try:
            if close := getattr(self._chunks, "close", None):
                close()
        finally:
            self._done()


class ModalBridge:
    """A server of a WSGI app, in a thread of its own. As a context: open inside, closed after.

    Attributes:
        url: where it answers, with no slash at the end.
    """

    def __init__(self, wsgi_app: Callable[..., Any]) -> None:
        self._wsgi_app = wsgi_app
        self._io = _ContainerIO()
        self._numbers = itertools.count(1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="modal-bridge", daemon=True)
        self._opened = threading.Event()
        self._inside: set[object] = set()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "ModalBridge":
        """Start to answer."""
        self._thread.start()
        assert self._opened.wait(10), "the bridge did not open"
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and free the threads of requests that were cancelled."""
        self.close()

    def close(self) -> None:
        """Stop answering. Whatever a thread of the app still waits for is cancelled."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the bridge did not close"

    def _counted(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> _Counted:
        """Call the app, and know for how long a thread is inside it."""
        self._inside.add(stay := object())
        try:
            chunks = self._wsgi_app(environ, start_response)
        except BaseException:
            self._inside.remove(stay)
            raise
        return _Counted(chunks, lambda: self._inside.discard(stay))

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._answer, _ = wsgi_app_wrapper(self._counted, self._io)
        edge = web.Application()
        edge.router.add_route("*", "/{path:.*}", self._handle)
        # Nothing is unpacked: the app is to see the bytes that the client sent.
        runner = web.AppRunner(edge, handler_cancellation=True, auto_decompress=False, access_log=None)
        await runner.setup()
        await web.SockSite(runner, self._listener).start()
        self._opened.set()
        await self._stop.wait()
        await runner.shutdown()
        # A thread of the app may wait for room in a queue that nobody reads any more, by a task of this loop.
        # It can come back to wait once more: the loop may not end before the last thread has left the app.
        here = asyncio.current_task()
        for _ in range(1000):
            for task in asyncio.all_tasks() - {here}:
                task.cancel()
            await asyncio.sleep(0.01)
            if not self._inside:
                break
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call_id = f"fc-{next(self._numbers)}"
        self._io.get_data_in.requests[call_id] = request
        forget = _set_current_context_ids([f"in-{call_id}"], [call_id], [f"at-{call_id}"])
        response = web.StreamResponse()
        try:
            async for message in self._answer(self._scope(request)):
                if message["type"] == "http.response.start":
                    response = _head(message)
                    await response.prepare(request)
                elif body := message.get("body"):
                    await response.write(body)
            await response.write_eof()
        finally:
            forget()
            del self._io.get_data_in.requests[call_id]
        return response

    def _scope(self, request: web.Request) -> dict[str, Any]:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.rel_url.raw_path.encode(),
            "query_string": request.rel_url.raw_query_string.encode(),
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.raw_headers if name.lower() not in HOP_BY_HOP],
            "client": tuple(peer[:2]) if peer else None,
            "server": self._listener.getsockname(),
        }


def _head(message: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(status=message["status"])
    for name, value in message.get("headers", []):
        response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
    return response


def main() -> None:
    """Serve what `modal deploy modal_app.py` would run, in this process, until standard input ends."""
    import modal_app

    with ModalBridge(modal_app.Gateway().web.local()) as bridge:
        print(bridge.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
