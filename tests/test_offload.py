"""Work that blocks is done aside under gevent, and where it is called without it."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from gateway.offload import cooperative, offload

UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent, socket, time
from gevent.monkey import get_original
from gateway.offload import cooperative, give_way, offload, rest
assert cooperative()
block, ticks = get_original("time", "sleep"), []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)
ticking = gevent.spawn(tick)
assert offload(lambda seconds, *, more: (block(seconds), more)[1], 0.5, more=7) == 7
assert len(ticks) >= 10, len(ticks)
def fails():
    raise KeyError("mine")
try:
    offload(fails)
except KeyError as error:
    assert error.args == ("mine",)
else:
    raise SystemExit("the exception was lost")
ticking.kill()
now = time.perf_counter
def spin(seconds):
    until = now() + seconds
    while now() < until:
        pass
def rested():
    spin(0.02)
    began = now()
    rest()
    first = now() - began
    rest()
    return first, now() - began - first
first, second = offload(rested)
assert first >= 0.035, first
assert second < 0.02, "no work, no rest"
began = now()
rest()
assert now() - began < 0.005, "the hub itself has no time to rest"
here, there = socket.socketpair()
heard = gevent.spawn(here.recv, 1)
gevent.sleep(0)
for turn in range(20):
    spin(0.01)
    there.send(b"x") if turn == 0 else None
    give_way()
    if heard.ready():
        break
assert turn <= 2, f"a socket that was ready had to wait for {turn} turns"
print("done")
"""


def test_under_gevent_the_others_go_on_while_work_blocks() -> None:
    done = subprocess.run([sys.executable, "-c", UNDER_GEVENT], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    assert done.stderr == ""  # what the work raised is the caller's to handle or to tell


def test_under_gevent_what_is_raised_is_the_callers_alone() -> None:
    done = subprocess.run([sys.executable, "-c", UNDER_GEVENT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), "gevent writes what a native thread lets out to stderr"


def test_without_gevent_work_is_done_by_the_thread_that_calls() -> None:
    assert not cooperative()
    assert offload(threading.get_ident) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        offload(lambda: 1 / 0)
