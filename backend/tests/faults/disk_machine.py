"""The machine itself: its clock, its sleep, its descriptors, the database."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import time

from faults.machine import Need, libfaketime
from faults.scene import Scene
from faults.table import row

MIB = 1 << 20


@row("The clock is set back by an hour in the middle", needs=[Need.FAKETIME], again=MIB)
def clock_back(scene: Scene) -> None:
    scene.model(16 * MIB)
    slow = scene.slow(4e6)
    now = scene.root / "now"
    now.write_text("+0")
    scene.serve(
        LD_PRELOAD=str(libfaketime()),
        FAKETIME_TIMESTAMP_FILE=str(now),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    scene.ask()
    scene.sent(3 * MIB)
    now.write_text("-1h")
    before = time.monotonic()
    scene.sent(8 * MIB)
    said = scene.until(text="Receiving", since=before).data
    assert said["speed_bps"] > 0 and (said["eta_s"] is None or said["eta_s"] < 60), said
    slow.clear()
    event = scene.completed()
    assert not re.search(r"-\d|h ", event["message"]), event["message"]
    silence = scene.watching.longest_silence_s
    assert silence < 5, f"no event for {silence:.1f} s"


@row(
    "The machine sleeps for 60 s (SIGSTOP, SIGCONT), and all connections are dead when it wakes",
    again=8 * MIB,
    lasts_s=80,
)
def asleep(scene: Scene) -> None:
    scene.model(24 * MIB, shards=3)
    slow = scene.slow(6e6)
    scene.serve()
    scene.ask()
    scene.sent(6 * MIB)
    scene.server.send(signal.SIGSTOP)
    scene.hub.network_down()
    scene.hub.network_up()
    time.sleep(60)
    scene.server.send(signal.SIGCONT)
    scene.knowable()
    scene.told(text="Receiving|reset|Tried again", held=False)
    slow.clear()
    scene.then("It wakes after 60 s.")
    scene.completed()


# What waits unread in the kernels' buffers when it wakes, a sleep's worth, may come over other connections too.
@row("The machine sleeps for 20 s, and the connections are still there", again=16 * MIB, lasts_s=30)
def asleep_shortly(scene: Scene) -> None:
    scene.model(128 * MIB)  # more than fits into sockets while nobody reads them
    slow = scene.slow(4e6)
    scene.serve()
    scene.ask()
    scene.sent(4 * MIB)
    scene.server.send(signal.SIGSTOP)
    time.sleep(20)
    scene.server.send(signal.SIGCONT)
    woke = time.monotonic()
    scene.knowable()
    scene.until(text="Receiving", since=woke)
    slow.clear()
    scene.completed()
    stalled = [event for event in scene.watching.events if event.at > woke and event.data["phase"] == "stalled"]
    assert not stalled, stalled[0].data["message"]


@row(
    "The server is started where few files may be open (`ulimit -n 48`): it takes what it is allowed",
    needs=[Need.LINUX],
)
def few_descriptors(scene: Scene) -> None:
    scene.model(16 * MIB, shards=40)
    slow = scene.slow(8e6)
    scene.serve(prefix=["prlimit", "--nofile=48:4096"])
    scene.ask()
    scene.sent(4 * MIB)
    slow.clear()
    scene.completed()


@row("No more than 48 files may be open, and that is final", needs=[Need.LINUX], again=MIB)
def hardly_any_descriptors(scene: Scene) -> None:
    scene.model(16 * MIB, shards=40)
    slow = scene.slow(8e6)
    scene.serve(prefix=["prlimit", "--nofile=48:48"])
    scene.ask()
    scene.until(text="Connecting|Receiving|No more files")
    scene.knowable()
    scene.failed("too_many_files")
    slow.clear()
    scene.then("The person starts the server with a higher limit and resumes.")
    scene.server.send(signal.SIGTERM)
    scene.server.ended()
    scene.unbind()
    scene.restart()
    scene.knowable()
    scene.move("resume")
    scene.completed()


@row("The process runs out of files in the middle (RLIMIT_NOFILE lowered to 24)", needs=[Need.LINUX], again=None)
def out_of_descriptors(scene: Scene) -> None:
    scene.model(16 * MIB, shards=40)
    slow = scene.slow(4e6)
    scene.serve()
    scene.ask()
    scene.sent(3 * MIB)
    pid = str(scene.server.process.pid)
    subprocess.run(["prlimit", "--nofile=24:4096", "--pid", pid], check=True)
    scene.knowable()
    scene.failed("too_many_files")
    subprocess.run(["prlimit", "--nofile=4096:4096", "--pid", pid], check=True)
    slow.clear()
    scene.resume("The limit is lifted; the person resumes.")
    scene.completed()


@row("Another program holds the database locked for 8 s", again=MIB, lasts_s=15)
def database_locked(scene: Scene) -> None:
    scene.model(8 * MIB)
    slow = scene.slow(2e6)
    scene.serve()
    scene.ask()
    scene.sent(MIB)
    with sqlite3.connect(scene.root / "data" / "mlx-manager.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(8)
        other.execute("ROLLBACK")
    other.close()
    slow.clear()
    scene.completed()
    silence = scene.watching.longest_silence_s
    assert silence < 5, f"no event for {silence:.1f} s"


@row("The database is damaged: the server does not start, and says what to do")
def database_corrupt(scene: Scene) -> None:
    scene.model(4 * MIB)
    scene.serve()
    scene.ask()
    scene.until(status="completed")
    scene.kill()
    database = scene.root / "data" / "mlx-manager.db"
    data = bytearray(database.read_bytes())
    data[100:] = b"\xa5" * (len(data) - 100)
    database.write_bytes(data)
    for rest in database.parent.glob("mlx-manager.db-*"):
        rest.unlink()
    scene.start_refused("damaged|cannot be used")
    database.rename(database.with_suffix(".broken"))
    scene.then("The person moves the file away and starts again: the model is there.")
    scene.task_id = ""
    scene.restart()
    scene.ask()
    scene.completed()


@row("The database is of a newer version: the server does not start, and says what to do")
def database_newer(scene: Scene) -> None:
    scene.model(4 * MIB)
    scene.serve()
    scene.kill()
    with sqlite3.connect(scene.root / "data" / "mlx-manager.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    scene.start_refused("newer version")
    scene.outcome.end = "not started; the list is untouched"


@row("The server is killed (SIGKILL) in the middle, and started again", again=8 * MIB)
def killed(scene: Scene) -> None:
    scene.model(24 * MIB, shards=3)
    slow = scene.slow(6e6)
    scene.serve()
    scene.ask()
    scene.sent(12 * MIB)
    scene.kill()
    slow.clear()
    scene.knowable()
    scene.restart()
    scene.completed()


@row("The server is told to end (SIGTERM) in the middle, and started again", again=8 * MIB)
def terminated(scene: Scene) -> None:
    scene.model(24 * MIB, shards=3)
    slow = scene.slow(6e6)
    scene.serve()
    scene.ask()
    scene.sent(12 * MIB)
    began = time.monotonic()
    scene.server.send(signal.SIGTERM)
    code, _ = scene.server.ended()
    assert code == 0 and time.monotonic() - began < 5, (code, time.monotonic() - began)
    slow.clear()
    scene.knowable()
    scene.restart()
    event = scene.completed()
    assert event["reused_bytes"] > 8 * MIB, event
