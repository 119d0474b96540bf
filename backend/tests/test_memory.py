"""Threads share the allocator's arenas: what one has freed another can have."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from cli_process import Home, Running
from fakes.hub_server import Blob, HubServer
from mlx_manager.memory import ARENAS

# glibc itself says which arenas there are.
MANY_THREADS = """
import ctypes, sys, threading
from mlx_manager.memory import share_arenas
libc = ctypes.CDLL(None)
if not hasattr(libc, "malloc_info"):
    sys.exit(3)
if sys.argv[1] == "shared":
    share_arenas()
libc.fdopen.restype = libc.malloc.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
all_there = threading.Barrier(8)
def work():
    libc.malloc(ctypes.c_size_t(50_000))
    all_there.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_info(0, out)
libc.fflush(out)
"""


def _arenas(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", MANY_THREADS, how], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("needs glibc")
    assert done.returncode == 0, done.stderr
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_many_threads_have_few_arenas() -> None:
    assert _arenas("own") > ARENAS
    assert _arenas("shared") <= ARENAS


PULL_AND_TELL = """
import ctypes, gc, sys
from mlx_manager.cli import main
libc = ctypes.CDLL(None)
try:
    main()
finally:
    print(gc.isenabled(), *gc.get_threshold(), file=sys.stderr, flush=True)
    if hasattr(libc, "malloc_info"):
        libc.fdopen.restype = ctypes.c_void_p
        out = ctypes.c_void_p(libc.fdopen(2, b"w"))
        libc.malloc_info(0, out)
        libc.fflush(out)
"""


def test_a_pull_that_may_last_for_hours_is_as_sparing_as_a_server(tmp_path: Path) -> None:
    with HubServer() as hub:
        hub.add_model("org/Large-4bit", {"config.json": b"{}\n", "model.safetensors": Blob(8 << 20)})
        command = [sys.executable, "-c", PULL_AND_TELL, "pull", "org/Large-4bit", "--quiet"]
        running = Running(command, Home(tmp_path, hub.url).env())
        try:
            done = running.wait()
        finally:
            running.end()
    assert done.code == 0, done.err
    searching, *arenas = done.err.splitlines()
    assert searching.split() == ["True", *map(str, gc.get_threshold())]
    assert "".join(arenas).count("<heap nr=") <= ARENAS
