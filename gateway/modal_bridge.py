"""Modal's bridge from ASGI to WSGI, taught to notice a caller that has left.

Modal cancels the input of such a caller. Its bridge (a vendored a2wsgi) then leaves the thread that runs the app
blocked for ever: nothing takes the chunks that it sends, and `close()` never comes. `install` replaces the bridge's
responder by one that lets the thread go and tells the app at once, also while a provider is silent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import logging
from typing import Any

from gateway.core.calls import CALLER_GONE, Cancellation

log = logging.getLogger(__name__)

#: Where the app finds the caller's Cancellation: in the ASGI scope, which the bridge keeps in the WSGI environment.
SCOPE_KEY = "gateway.caller"

#: How often a thread that waits for room looks whether its caller is still there.
_LOOK_S = 0.5


def install() -> bool:
    """Replace the bridge's responder, once in a process.

    Returns:
        Whether callers that leave will be noticed; False (and a line in the log) where this release of Modal is
        built in another way.
    """
    try:
        bridge: Any = importlib.import_module("modal._vendor.a2wsgi_wsgi")  # on Modal only
        responder = bridge.WSGIResponder
        if not all(hasattr(responder, name) for name in ("__call__", "send", "wsgi")):
            raise AttributeError("WSGIResponder")
    except (ImportError, AttributeError) as error:
        log.warning("this release of Modal has another bridge (%s): callers that leave will not be noticed", error)
        return False
    if not getattr(responder, "notices", False):
        bridge.WSGIResponder = _noticing(responder)
    return True


def _noticing(responder: Any) -> Any:
    class Responder(responder):  # type: ignore[misc]
        """One request on the bridge."""

        notices = True

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            self._caller = scope[SCOPE_KEY] = Cancellation()
            self._left = asyncio.Event()
            try:
                await super().__call__(scope, self._until_left(receive), send)
            except asyncio.CancelledError:
                self._caller.abort(CALLER_GONE)
                self._left.set()
                while not self.send_queue.empty():  # room for the chunk that the thread is waiting to hand over
                    self.send_queue.get_nowait()
                raise

        def _until_left(self, receive: Any) -> Any:
            """A thread that waits for more of the body sees its end when the caller has left."""

            async def receive_or_end() -> Any:
                message = asyncio.ensure_future(receive())
                left = asyncio.ensure_future(self._left.wait())
                done, waiting = await asyncio.wait({message, left}, return_when=asyncio.FIRST_COMPLETED)
                for task in waiting:
                    task.cancel()
                return message.result() if message in done else {"type": "http.disconnect"}

            return receive_or_end

        def send(self, message: Any) -> None:
            """Hand one message over; runs in the thread of the app."""
            future = asyncio.run_coroutine_threadsafe(self.send_queue.put(message), loop=self.loop)
            while True:
                if self._caller.reason is not None:
                    future.cancel()
                    raise ConnectionResetError("the caller has left")
                try:
                    future.result(timeout=_LOOK_S)
                except concurrent.futures.TimeoutError:
                    continue
                return

    return Responder
