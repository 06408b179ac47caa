"""Hundreds of streams at once, read by one event loop."""

import asyncio
import json
from typing import Any


def stream_at_once(port: int, token: str, asked: dict[str, Any], count: int, timeout_s: float = 60) -> list[bytes]:
    """Send the same request on `count` connections at once and return what each was answered, without its framing."""

    async def all_of_them() -> list[bytes]:
        async with asyncio.timeout(timeout_s):
            return await asyncio.gather(*(_one(port, token, asked) for _ in range(count)))

    return asyncio.run(all_of_them())


async def _one(port: int, token: str, asked: dict[str, Any]) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = json.dumps(asked).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (token.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        got = b""
        while size := int(await reader.readline(), 16):
            got += await reader.readexactly(size)
            await reader.readline()
        return got
    finally:
        writer.close()
        await writer.wait_closed()
