"""Connections to providers: what is read of an answer, when a connection is used again, and how it fails."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from gateway.errors import InvalidRequest
from gateway.upstream import http1
from gateway.upstream.http1 import BadAnswer, ConnectFailed, Connection, Connections, Origin, Target, target_of

HOST = Origin("http", "127.0.0.1", 80)
TARGET = Target(HOST, "127.0.0.1", "/v1/x")
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Peer:
    """The other end of a connection."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair()
        ours.settimeout(5)
        self.sock.settimeout(5)
        self.connection = Connection(HOST, ours)

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def asked(self) -> bytes:
        self.connection.send("POST", TARGET, {"X-One": "1"}, b"{}")
        return self.sock.recv(65536)


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    with closing(made.connection), closing(made.sock):
        yield made


def whole(connection: Connection) -> bytes:
    connection.read_head()
    return b"".join(iter(connection.read, b""))


def test_a_request_has_its_host_its_headers_and_its_length(peer: Peer) -> None:
    assert peer.asked() == b"POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nX-One: 1\r\nContent-Length: 2\r\n\r\n{}"


def test_a_get_has_no_length_and_an_empty_post_has_one(peer: Peer) -> None:
    peer.connection.send("GET", TARGET, {}, None)
    assert peer.sock.recv(65536) == b"GET /v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    peer.connection.send("POST", TARGET, {}, None)
    assert peer.sock.recv(65536).endswith(b"\r\nContent-Length: 0\r\n\r\n")


def test_a_large_body_comes_through_whole(peer: Peer) -> None:
    body, got = bytes(3 << 20), bytearray()

    def read() -> None:
        while len(got) < len(body):
            got.extend(peer.sock.recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    peer.connection.send("POST", TARGET, {}, body)
    reader.join(5)
    assert got.endswith(body[:1000])
    assert len(got) > len(body)


class Pieces:
    """A body that comes in pieces (calls.Streamed)."""

    def __init__(self, *pieces: bytes | Exception, size: int | None = None) -> None:
        self._pieces = pieces
        self.size = size

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def test_a_body_in_pieces_has_its_length_or_is_chunked(peer: Peer) -> None:
    peer.connection.send("POST", TARGET, {}, Pieces(b"one", b"two", size=6))
    assert peer.sock.recv(65536).endswith(b"\r\nContent-Length: 6\r\n\r\nonetwo")
    peer.connection.send("POST", TARGET, {}, Pieces(b"one", b"sixteen bytes ok"))
    head, _, body = peer.sock.recv(65536).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body == b"3\r\none\r\n10\r\nsixteen bytes ok\r\n0\r\n\r\n"


def test_a_body_in_pieces_that_breaks_off_says_why(peer: Peer) -> None:
    with pytest.raises(InvalidRequest):
        peer.connection.send("POST", TARGET, {}, Pieces(b"one", InvalidRequest("cut off"), size=6))


@pytest.mark.parametrize("pieces", [(b"one",), (b"one", b"two", b"three")], ids=["short", "long"])
def test_a_body_in_pieces_of_another_size_is_a_failure(peer: Peer, pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(ConnectionAbortedError):
        peer.connection.send("POST", TARGET, {}, Pieces(*pieces, size=6))


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb"])
@pytest.mark.parametrize("where", ["name", "value", "path"])
def test_no_line_break_gets_into_a_head(peer: Peer, value: str, where: str) -> None:
    headers = {value: "1"} if where == "name" else {"X": value} if where == "value" else {}
    target = TARGET._replace(path="/" + value) if where == "path" else TARGET
    with pytest.raises(ValueError, match="line break"):
        peer.connection.send("POST", target, headers, b"{}")


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (HELLO, b"hello"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrail: 1\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na", b"a"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO, b"hello"),
    ],
)
def test_wherever_the_network_cuts_the_same_answer_is_read(said: bytes, body: bytes) -> None:
    for cut in range(1, len(said)):
        peer = Peer()
        with closing(peer.connection), closing(peer.sock):
            peer.asked()
            peer.say(said[:cut])
            threading.Timer(0.002, peer.say, [said[cut:]]).start()
            assert whole(peer.connection) == body, cut
            assert peer.connection.reusable
            assert "link" not in peer.connection.headers
            assert "trail" not in peer.connection.headers


@pytest.mark.parametrize(
    ("begun", "endless"),
    [
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        (b"HTTP/1.1 200 OK\r\n", b"x: \r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=", b"b"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y"),
    ],
    ids=["interim", "header", "headers", "size", "extension", "trailers", "trailer"],
)
def test_what_never_becomes_a_body_is_given_up_after_a_while(peer: Peer, begun: bytes, endless: bytes) -> None:
    peer.asked()
    over = threading.Event()

    def talk() -> None:
        try:
            peer.say(begun)
            while not over.is_set():
                peer.say(endless * (16384 // len(endless)))
        except OSError:
            pass

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        with pytest.raises(BadAnswer):
            whole(peer.connection)
        assert not peer.connection.reusable
    finally:
        over.set()
        peer.connection.close()
        talker.join(10)


def test_headers_are_found_in_lower_case_and_those_of_one_name_are_joined(peer: Peer) -> None:
    peer.asked()
    peer.say(b"HTTP/1.1 429 No\r\nRetry-After: 3\r\nX-A: 1\r\nx-a: 2\r\nX-Latin: \xe9\r\nContent-Length: 0\r\n\r\n")
    peer.connection.read_head()
    assert peer.connection.status == 429
    assert peer.connection.headers == {"retry-after": "3", "x-a": "1, 2", "x-latin": "é", "content-length": "0"}


def test_a_piece_is_handed_out_before_the_next_has_come(peer: Peer) -> None:
    peer.asked()
    peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.connection.read_head()
    for number in range(3):
        peer.say(b"1\r\n%d\r\n" % number)
        assert peer.connection.read() == b"%d" % number
        assert not peer.connection.complete
    peer.say(b"0\r\n\r\n")
    assert peer.connection.read() == b""
    assert peer.connection.complete


def test_an_answer_without_a_length_ends_with_its_connection(peer: Peer) -> None:
    peer.asked()
    peer.say(b"HTTP/1.1 200 OK\r\n\r\nabc")
    peer.sock.shutdown(socket.SHUT_WR)
    assert whole(peer.connection) == b"abc"
    assert not peer.connection.reusable


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200 O", HELLO[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
)
def test_an_answer_that_is_cut_off_is_a_reset(peer: Peer, said: bytes) -> None:
    peer.asked()
    peer.say(said)
    peer.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        whole(peer.connection)
    assert not peer.connection.reusable


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_no_answer_is_said_to_be_none(peer: Peer, said: bytes) -> None:
    peer.asked()
    peer.say(said)
    peer.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(BadAnswer):
        whole(peer.connection)
    assert not peer.connection.reusable


def test_what_came_before_a_broken_chunk_is_handed_out_first(peer: Peer) -> None:
    peer.asked()
    peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
    peer.connection.read_head()
    assert peer.connection.read() == b"abc"
    with pytest.raises(BadAnswer):
        peer.connection.read()


def test_a_head_without_an_end_is_given_up(peer: Peer) -> None:
    peer.asked()
    lines = b"X-Long: " + b"a" * 8000 + b"\r\n"

    def flood() -> None:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            peer.say(b"HTTP/1.1 200 OK\r\n", *(lines for _ in range(2000)))

    talker = threading.Thread(target=flood)
    talker.start()
    with pytest.raises(BadAnswer, match="does not end"):
        peer.connection.read_head()
    peer.connection.close()
    talker.join(5)
    assert not talker.is_alive()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        HELLO + b"HTTP/1.1 200 OK\r\n",
        HELLO + b"x",
    ],
)
def test_a_connection_that_will_close_or_says_too_much_is_not_used_again(peer: Peer, said: bytes) -> None:
    peer.asked()
    peer.say(said)
    assert whole(peer.connection) == b"hello"
    assert not peer.connection.reusable


def test_one_connection_carries_one_answer_after_the_other(peer: Peer) -> None:
    for number in range(3):
        peer.asked()
        assert peer.connection.status is None
        assert not peer.connection.complete
        peer.say(b"HTTP/1.1 20%d OK\r\nContent-Length: 1\r\n\r\n%d" % (number, number))
        assert whole(peer.connection) == b"%d" % number
        assert peer.connection.status == 200 + number


def test_a_refusal_of_a_body_that_is_still_being_sent_is_read() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def refuse() -> None:
            sock, _ = server.accept()
            with closing(sock):
                sock.recv(1000)
                sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
                sock.shutdown(socket.SHUT_WR)
                time.sleep(0.3)  # closing at once would make a reset of what was not read

        threading.Thread(target=refuse, daemon=True).start()
        connection = Connections().connect(Origin("http", "127.0.0.1", server.getsockname()[1]), 5)
        with closing(connection):
            connection.sock.settimeout(5)
            connection.send("POST", TARGET, {}, bytes(64 << 20))
            assert whole(connection) == b"big"
            assert connection.status == 413
            assert not connection.reusable


# Connections that wait.


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


def origin_of(server: socket.socket) -> Origin:
    return Origin("http", "127.0.0.1", server.getsockname()[1])


def used(connections: Connections, server: socket.socket) -> tuple[Connection, socket.socket]:
    """A connection that has carried a call, and its other end."""
    connection = connections.connect(origin_of(server), 5)
    other, _ = server.accept()
    connection.send("GET", TARGET, {}, None)
    other.sendall(HELLO)
    whole(connection)
    return connection, other


def test_the_connection_that_was_used_last_is_used_again_first(server: socket.socket) -> None:
    connections = Connections()
    pairs = [used(connections, server) for _ in range(3)]
    for connection, _ in pairs:
        connections.put(connection)
    taken = [connections.take(origin_of(server)) for _ in range(4)]
    assert taken == [pairs[2][0], pairs[1][0], pairs[0][0], None]
    for connection, other in pairs:
        connection.close()
        other.close()


@pytest.mark.parametrize("act", [socket.socket.close, lambda other: other.sendall(b"x")], ids=["closed", "spoke"])
def test_a_connection_whose_other_side_closed_or_spoke_meanwhile_is_not_taken(
    server: socket.socket, act: Callable[[socket.socket], None]
) -> None:
    connections = Connections()
    connection, other = used(connections, server)
    connections.put(connection)
    with closing(other):
        act(other)
        time.sleep(0.05)
        assert connections.take(origin_of(server)) is None
        assert connection.sock.fileno() == -1


def test_a_connection_that_was_idle_for_too_long_is_closed(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = Connections()
    old, other = used(connections, server)
    connections.put(old)
    now_s = time.monotonic()
    monkeypatch.setattr(http1.time, "monotonic", lambda: now_s + http1.MOST_IDLE_S + 1)
    assert connections.take(origin_of(server)) is None
    assert old.sock.fileno() == -1
    other.close()


def test_old_ones_of_an_address_that_nobody_asks_any_more_are_swept_out(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = Connections()
    old, other = used(connections, server)
    connections.put(old)
    now_s = time.monotonic()
    monkeypatch.setattr(http1.time, "monotonic", lambda: now_s + http1.MOST_IDLE_S + 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as elsewhere:
        new, another = used(connections, elsewhere)
        connections.put(new)
        assert old.sock.fileno() == -1
        assert connections.take(origin_of(elsewhere)) is new
        new.close()
        another.close()
    other.close()


def test_no_more_than_so_many_are_kept(server: socket.socket) -> None:
    connections = Connections(2)
    pairs = [used(connections, server) for _ in range(3)]
    for connection, _ in pairs:
        connections.put(connection)
    assert [connection.sock.fileno() == -1 for connection, _ in pairs] == [False, False, True]
    connections.clear()
    assert all(connection.sock.fileno() == -1 for connection, _ in pairs)
    for _, other in pairs:
        other.close()


def test_what_is_left_is_closed_with_its_keeper(server: socket.socket) -> None:
    connections = Connections()
    connection, other = used(connections, server)
    connections.put(connection)
    del connections
    assert connection.sock.fileno() == -1
    other.close()


def test_no_connection_is_a_failure_to_connect() -> None:
    with socket.socket() as held:  # bound and not listening: nobody else takes the port
        held.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectFailed) as failed:
            Connections().connect(Origin("http", "127.0.0.1", held.getsockname()[1]), 1)
    assert isinstance(failed.value.__cause__, ConnectionRefusedError)
    for host in ("nobody.invalid", "a..b", "x" * 70):
        with pytest.raises(ConnectFailed):
            Connections().connect(Origin("http", host, 80), 1)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://a.example", Target(Origin("http", "a.example", 80), "a.example", "/")),
        ("https://a.example/v1?x=1#f", Target(Origin("https", "a.example", 443), "a.example", "/v1?x=1")),
        ("http://A.example:8080/", Target(Origin("http", "a.example", 8080), "a.example:8080", "/")),
        ("http://me:pass@a.example/x", Target(Origin("http", "a.example", 80), "a.example", "/x")),
        ("http://[::1]:9/x", Target(Origin("http", "::1", 9), "[::1]:9", "/x")),
        (
            "https://bücher.example/",
            Target(Origin("https", "xn--bcher-kva.example", 443), "xn--bcher-kva.example", "/"),
        ),
    ],
)
def test_an_address_is_taken_apart(url: str, target: Target) -> None:
    assert target_of(url) == target


@pytest.mark.parametrize("url", ["ftp://a.example/", "a.example", "http://", "file:///etc/passwd", "http://a:x/"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"address|Port"):
        target_of(url)
