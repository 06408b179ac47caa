"""Lighter sockets wait, read and send as gevent's own do; without gevent there are none."""

from __future__ import annotations

import io
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from gateway.sockets import body_reader, lighten, lighten_tls

BEGIN = """
from gevent import monkey
monkey.patch_all()
import gc, gevent, os, socket, ssl, sys, time, weakref
import gevent.exceptions
from gateway.sockets import lighten, lighten_tls
now = time.monotonic
def raised(kind, work, *args):
    try:
        work(*args)
    except kind as error:
        return error
    raise SystemExit(f"no {kind.__name__}")
"""

PLAIN = (
    BEGIN
    + """
def pair(timeout_s=5.0):
    here, there = socket.socketpair()
    here.settimeout(timeout_s)
    light = lighten(here)
    assert type(light) is not type(there) and light.gettimeout() == timeout_s
    assert here.fileno() == -1, "there must be one owner of the descriptor"
    assert lighten(light) is light
    return light, there

light, there = pair()
there.sendall(b"one")
assert light.recv(100) == b"one"
gevent.spawn_later(0.05, there.sendall, b"two and more")
assert light.recv(3) == b"two", "what comes later is waited for"
assert light.recv(3) == b" an", "a read that was full is followed by one at once"
assert light.recv(100) == b"d more"
there.sendall(b"x")
gevent.sleep(0.02)
assert light.recv(100) == b"x"
there.close()
assert light.recv(100) == b"" and light.recv(100) == b""

for timeout_s in (0.05, 0.2, 0.05):
    light, there = pair(timeout_s)
    for _ in range(2):
        began = now()
        assert type(raised(TimeoutError, light.recv, 100)) is TimeoutError
        assert timeout_s * 0.8 <= now() - began < timeout_s + 3, now() - began
    light.settimeout(0.4)
    gevent.spawn_later(0.25, there.sendall, b"late")
    assert light.recv(100) == b"late", "the timeout that is set now counts"
    light.settimeout(0)
    raised(BlockingIOError, light.recv, 100)
    light.settimeout(None)
    gevent.spawn_later(0.1, there.sendall, b"at last")
    assert light.recv(100) == b"at last"

light, there = pair(0.3)
for _ in range(4):
    gevent.spawn_later(0.2, there.sendall, b"in time")
    assert light.recv(100) == b"in time", "the timer of an earlier wait ends no later one"
began = now()
raised(TimeoutError, light.recv, 100)
assert 0.28 <= now() - began < 3, "and rings for the last one when that is late"
light.settimeout(50)
gevent.spawn_later(0.02, there.sendall, b"x")
assert light.recv(100) == b"x"
light.settimeout(0.05)
began = now()
raised(TimeoutError, light.recv, 100)
assert now() - began < 3, "a shorter wait behind a longer one"
light.settimeout(50)
gevent.spawn_later(0.02, there.sendall, b"x")
assert light.recv(100) == b"x"
held = weakref.ref(light)
light.close()
del light
gevent.sleep(0.01)
gc.collect()
assert held() is None, "a closed socket leaves no timer behind"

light, there = pair()
reading = gevent.spawn(light.recv, 100)
gevent.sleep(0.02)
sending = gevent.spawn(light.sendall, bytes(3 << 20))
gevent.sleep(0.02)
there.sendall(b"meanwhile")
assert reading.get(timeout=3) == b"meanwhile", "another may write at the same time"
left = 3 << 20
while left:
    left -= len(there.recv(1 << 20))
sending.get(timeout=3)
waiting = gevent.spawn(raised, OSError, light.recv, 100)
gevent.sleep(0.02)
raised(gevent.exceptions.ConcurrentObjectUseError, light.recv, 100)
light.close()
assert waiting.get(timeout=3)

light, there = pair()
light.sendall(b"asked")
assert there.recv(100) == b"asked"
gevent.spawn_later(0.05, light.shutdown, socket.SHUT_RDWR)
began = now()
raised(OSError, light.recv, 100)
assert now() - began < 3, "who shuts it down ends the wait"
light, there = pair()
light.sendall(b"asked")
gevent.spawn_later(0.05, light.close)
raised(OSError, light.recv, 100)
light, there = pair()
waiting = gevent.spawn(light.recv, 1)
gevent.sleep(0.02)
waiting.kill()
assert isinstance(waiting.value, gevent.GreenletExit)

whole = os.urandom(3 << 20)
for content in (whole, bytearray(whole), memoryview(whole), memoryview(whole).cast("I"), b""):
    light, there = pair()
    sending = gevent.spawn(light.sendall, content)
    got = bytearray()
    while len(got) < (len(whole) if len(content) else 0):
        gevent.sleep(0)
        got += there.recv(100_000)
    sending.get()
    assert got == bytes(content)
light, there = pair(0.1)
raised(TimeoutError, light.sendall, whole)
there.close()
light.close()
raised(OSError, light.sendall, b"x")
raised(OSError, light.recv, 1)

pairs = [pair(0.2) for _ in range(200)]
def read(light):
    try:
        return light.recv(10)
    except TimeoutError:
        return None
readers = [gevent.spawn(read, light) for light, _there in pairs]
gevent.sleep(0.05)
for number, (_light, there) in enumerate(pairs):
    if number % 2:
        there.sendall(b"%d" % number)
gevent.joinall(readers)
assert [reader.value for reader in readers[1::2]] == [b"%d" % number for number in range(1, 200, 2)]
assert all(reader.value is None for reader in readers[::2])
print("done")
"""
)

ENCRYPTED = (
    BEGIN
    + """
server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
server.load_cert_chain(sys.argv[1], sys.argv[2])
client = ssl.create_default_context(cafile=sys.argv[3])
lighten_tls(client)
def pair(timeout_s=5.0):
    here, there = socket.socketpair()
    here.settimeout(timeout_s)
    accepting = gevent.spawn(server.wrap_socket, there, server_side=True)
    light = client.wrap_socket(here, server_hostname="localhost")
    assert type(light) is client.sslsocket_class is not ssl.SSLSocket
    return light, accepting.get()

light, there = pair(0.1)
assert lighten(light) is light
light.sendall(b"asked")
assert there.recv(100) == b"asked"
for _ in range(2):
    began = now()
    raised(TimeoutError, light.recv, 100)
    assert 0.08 < now() - began < 3
light.settimeout(2)
gevent.spawn_later(0.15, there.sendall, b"answered")
assert light.recv(100) == b"answered"
gevent.spawn_later(0.05, socket.socket.shutdown, light, socket.SHUT_RDWR)
began = now()
raised(OSError, light.recv, 100)
assert now() - began < 3
here, there = socket.socketpair()
here.settimeout(0.1)
raised(TimeoutError, lambda: client.wrap_socket(here, server_hostname="localhost"))  # nobody shakes hands
print("done")
"""
)


def run(script: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("size", [200_000, 3 << 20])
def test_a_body_is_read_from_the_socket_to_its_end_and_no_further(size: int) -> None:
    here, there = socket.socketpair()
    body = os.urandom(size)
    begun, follows = body[:700], b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"  # less than gunicorn takes at least
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    there.sendall(head + begun)
    parser = RequestParser(Config(), here, ("127.0.0.1", 1))
    request = next(parser)
    sending = threading.Thread(target=there.sendall, args=(body[700:] + follows,))
    sending.start()
    read, got = body_reader(request.body), []
    while piece := read(65536):
        assert len(piece) <= 65536
        got.append(piece)
    sending.join()
    assert b"".join(got) == body
    assert len(got[0]) == 700, "what gunicorn has read ahead comes first"
    assert read(65536) == b""
    assert next(parser).path == "/next"
    here.close()
    there.close()


def test_a_body_that_breaks_off_ends_early() -> None:
    here, there = socket.socketpair()
    there.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50)
    read = body_reader(next(RequestParser(Config(), here, ("127.0.0.1", 1))).body)
    there.close()
    assert [read(1000), read(1000)] == [b"x" * 50, b""]
    here.close()


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", None])
def test_a_body_in_chunks_or_of_another_server_is_read_as_it_offers(head: bytes | None) -> None:
    here, there = socket.socketpair()
    source: Any = io.BytesIO(b"abc")
    if head is not None:
        there.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + head)
        source = next(RequestParser(Config(), here, ("127.0.0.1", 1))).body
    read = body_reader(source)
    assert (read(2), read(10), read(10)) == (b"ab", b"c", b"")
    here.close()
    there.close()


def test_under_gevent_they_wait_read_and_send_as_gevents_own() -> None:
    run(PLAIN)


def test_under_gevent_those_of_tls_do_too(tmp_path: Path) -> None:
    authority, names = trustme.CA(), ("chain", "key", "authority")
    issued = authority.issue_cert("localhost")
    chain, key, trusted = files = [tmp_path / name for name in names]
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(trusted))
    run(ENCRYPTED, *map(str, files))


def test_without_gevent_a_socket_stays_what_it_is() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert lighten(here) is here
    context = ssl.create_default_context()
    lighten_tls(context)
    assert context.sslsocket_class is ssl.SSLSocket
