"""What reading gunicorn.conf.py does to the process that reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]

#: A package that gevent is to tell when it has patched.
_ENTRY_POINTS = "[gevent.plugins.monkey.did_patch_all]\nplugin = plugin:told\n"
_PLUGIN = "def told(event):\n    print('told', type(event).__name__)\n"

_READ = f"""
import gc, runpy, sys
from importlib import metadata
looked, look = [], metadata.MetadataPathFinder.find_distributions
def counted(*arguments, **more):
    looked.append(1)
    return look(*arguments, **more)
metadata.MetadataPathFinder.find_distributions = counted
before = metadata.entry_points
conf = runpy.run_path({str(TOP / "gunicorn.conf.py")!r})
from gevent import monkey
print("patched", monkey.is_module_patched("threading"), monkey.is_module_patched("socket"))
print("looked", len(looked), metadata.entry_points is before)
print("collects", gc.isenabled())
from types import SimpleNamespace
from gateway import serving
serving.prepare = serving.expect_free = serving.suit_many_calls = serving.drain_on_sigterm = lambda *_, **__: None
app = lambda: SimpleNamespace(extensions={{"gateway": SimpleNamespace(open=lambda: None)}})
told = SimpleNamespace(address=[], workers=1, reuse_port=False, graceful_timeout=25)
of = SimpleNamespace(app=SimpleNamespace(wsgi=app), cfg=told, master_pid=0, log=None)
conf["on_starting"](of)
print("master collects", gc.isenabled())
gc.disable()
conf["post_worker_init"](of)
print("worker collects", gc.isenabled())
gc.enable()
runpy.run_path({str(TOP / "gunicorn.conf.py")!r})
print("collects when read again", gc.isenabled())
"""


def read(folder: Path) -> list[str]:
    """Read the file in a process of its own, beside a package with a plugin for gevent; give what was printed."""
    (folder / "plugin.py").write_text(_PLUGIN)
    (folder / "plugin-1.0.dist-info").mkdir()
    (folder / "plugin-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (folder / "plugin-1.0.dist-info" / "entry_points.txt").write_text(_ENTRY_POINTS)
    done = subprocess.run(
        [sys.executable, "-c", _READ],
        cwd=folder,
        env={"PYTHONPATH": f"{folder}:{TOP}", "GATEWAY_AUTH_TOKEN": "a-token-for-one-test", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_patches_first_and_looks_for_plugins_of_gevent_once(tmp_path: Path) -> None:
    printed = read(tmp_path)
    assert "patched True True" in printed
    assert "looked 1 True" in printed
    assert "told GeventDidPatchAllEvent" in printed


def test_garbage_is_looked_for_again_as_soon_as_the_app_is_there(tmp_path: Path) -> None:
    printed = read(tmp_path)
    assert "collects False" in printed, "nothing that is imported is garbage"
    assert "master collects True" in printed
    assert "worker collects True" in printed
    assert "collects when read again True" in printed


_WRITTEN = f"""
import runpy
for _ in range(2):  # again at SIGHUP
    runpy.run_path({str(TOP / "gunicorn.conf.py")!r})
from types import SimpleNamespace
from gunicorn.config import Config
from gunicorn.http import wsgi
class Sock:
    def __init__(self):
        self.sends = []
        self.sendall = self.sends.append
def asked(method="GET", version=(1, 1)):
    return SimpleNamespace(
        method=method, version=version, headers=[], scheme="http", path="/", uri="/", query="", body=None,
        proxy_protocol_info={{}}, should_close=lambda: False, _expected_100_continue=False,
    )
def written(*pieces, headers=(), **request):
    sock = Sock()
    response, _ = wsgi.create(asked(**request), sock, "", "", Config())
    response.start_response("200 OK", list(headers))
    for piece in pieces:
        response.write(piece)
    response.close()
    head, _, first = sock.sends[0].partition(b"\\r\\n\\r\\n")
    assert head.startswith(b"HTTP/1.") and b" 200 OK\\r\\n" in head, head
    return [first, *sock.sends[1:]]
length = [("Content-Length", "5")]
print("whole", written(b"hello", headers=length))
print("too long", written(b"hello and more", headers=length))
print("streamed", written(b"a" * 20, b"", b"b", b"c"))
print("empty first", written(b"", b"a"))
print("none", written(headers=[("Content-Length", "0")]))
print("head", written(b"hello", method="HEAD", headers=length))
print("old", written(b"a", b"b", version=(1, 0)))
print("large", [len(send) for send in written(b"x" * 100_000, headers=[("Content-Length", "100000")])])
print("once", type(wsgi.create(asked(), Sock(), "", "", Config())[0]).__mro__[1] is wsgi.Response)
"""


def test_a_head_goes_out_with_what_comes_behind_it_and_each_chunk_at_once() -> None:
    """What it sends, but for the head that the first send begins with."""
    done = subprocess.run(
        [sys.executable, "-c", _WRITTEN],
        cwd=TOP,
        env={"GATEWAY_AUTH_TOKEN": "a-token-for-one-test", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "whole [b'hello']",
        "too long [b'hello']",
        "streamed [b'14\\r\\naaaaaaaaaaaaaaaaaaaa\\r\\n', b'1\\r\\nb\\r\\n', b'1\\r\\nc\\r\\n', b'0\\r\\n\\r\\n']",
        "empty first [b'', b'1\\r\\na\\r\\n', b'0\\r\\n\\r\\n']",
        "none [b'']",
        "head [b'']",
        "old [b'a', b'b']",
        "large [0, 100000]",
        "once True",
    ]
