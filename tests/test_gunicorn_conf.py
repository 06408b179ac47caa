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
print("imported for httpx's command line", sorted({{"httpx._main", "rich", "pygments"}} & set(sys.modules)))
import httpx
print("httpx", httpx.Client.__name__, callable(httpx.main))
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


def test_httpx_comes_without_its_command_line(tmp_path: Path) -> None:
    printed = read(tmp_path)
    assert "imported for httpx's command line []" in printed
    assert "httpx Client True" in printed
