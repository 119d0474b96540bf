"""Pause, resume and cancel: in each state and phase, twice, and from two clients at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from filelock import FileLock

from fakes.hub_server import Blob, Fault
from faults.scene import BIG, MODEL, WEIGHTS, Scene
from faults.table import row

T = TypeVar("T")
MIB = 1 << 20
OTHER = "mlx-community/Other-1B-4bit"


def _moved_twice(scene: Scene, reach: Callable[[], None]) -> None:
    """Pause twice, resume twice, cancel twice; ``reach`` waits until it is where it is to be moved."""
    reach()
    for verb, status in (("pause", "paused"), ("cancel", "cancelled")):
        asked = time.monotonic()
        assert scene.move(verb)["status"] == status
        event = scene.until(status=status, since=asked)
        scene.note(event.data, event.at - asked)
        refused = scene.move(verb, 409)
        assert refused["code"] == "move_not_allowed" and status in refused["detail"], refused
        if verb == "pause":
            assert scene.hub.connections_open == 0 or not _asked(scene), "it goes on asking"
            scene.move("resume")
            assert "advice" in scene.move("resume", 409)
            reach()
    left = [path.name for path in (scene.repo_dir / "blobs").glob("*")]
    assert not [name for name in left if ".part" in name], left
    scene.outcome.then.append("Paused, resumed, cancelled, each twice: the second time is refused (409).")
    scene.outcome.end = "cancelled, nothing partial left"


def _asked(scene: Scene) -> bool:
    """Somebody still waits for bytes of it."""
    return any(record.in_flight and record.repo == scene.model_id for record in scene.hub.requests())


def _where(scene: Scene, phase: str) -> Callable[[], None]:
    """Waits for a phase of the latest watch."""

    def reach() -> None:
        scene.until(phase)

    return reach


@row("Moved while it waits in the line")
def queued(scene: Scene) -> None:
    scene.model()
    scene.hub.add_model(OTHER, {"model.safetensors": b"x" * MIB})
    scene.hub.fault(Fault.black_hole(), where="cdn", repo=OTHER)
    scene.hub.fault(Fault.black_hole(), where="info", repo=OTHER)
    api = scene.serve(MLX_MANAGER_MAX_DOWNLOADS="1")
    api.download(OTHER)
    scene.ask()
    _moved_twice(scene, _where(scene, "waiting_for_slot"))


@row("Moved while the Hub is asked and does not answer", lasts_s=8)
def listing(scene: Scene) -> None:
    scene.model()
    scene.hub.fault(Fault.black_hole(), where="info")
    scene.serve()
    scene.ask()
    _moved_twice(scene, _where(scene, "listing"))


@row("Moved while the Hub's errors are waited out")
def hub_retrying(scene: Scene) -> None:
    scene.model()
    scene.hub.fault(Fault.status(500), where="info")
    scene.serve()
    scene.ask()
    _moved_twice(scene, _where(scene, "retrying"))


@row("Moved while the Hub's rate limit is waited out")
def rate_limited(scene: Scene) -> None:
    scene.model()
    scene.hub.fault(Fault.rate_limited(retry_after=60), where="info")
    scene.serve()
    scene.ask()
    _moved_twice(scene, _where(scene, "rate_limited"))


@row("Moved while it connects to a CDN that does not answer")
def connecting(scene: Scene) -> None:
    scene.model()
    scene.hub.fault(Fault.black_hole(), where="cdn")
    scene.hub.fault(Fault.black_hole(), where="resolve")
    scene.serve()
    scene.ask()
    _moved_twice(scene, _where(scene, "connecting"))


@row("Moved while bytes come")
def transferring(scene: Scene) -> None:
    scene.model(8 * MIB)
    scene.slow(1e6)
    scene.serve()
    scene.ask()
    _moved_twice(scene, _where(scene, "transferring"))


@row("Moved while it is stalled", lasts_s=15)
def stalled(scene: Scene) -> None:
    scene.model(8 * MIB)
    scene.hub.fault(Fault.stall(after=1000), where="cdn", path=BIG)
    scene.serve()
    scene.ask()
    _moved_twice(scene, _where(scene, "stalled"))


@row("Moved while the CDN's errors are waited out")
def cdn_retrying(scene: Scene) -> None:
    scene.model()
    scene.hub.fault(Fault.status(503), where="cdn")
    scene.serve()
    scene.ask()
    _moved_twice(scene, _where(scene, "retrying"))


@row("Moved while another program holds the file's lock")
def locked(scene: Scene) -> None:
    scene.model()
    locks = scene.cache / ".locks" / scene.repo_dir.name
    locks.mkdir(parents=True)
    for file in scene.hub.repo(MODEL).head.files.values():
        scene.enter(FileLock(locks / f"{file.etag}.lock"))
    scene.serve()
    scene.ask()
    _moved_twice(scene, _where(scene, "waiting_for_lock"))


@row("Moved while a file that is here already is hashed", lasts_s=15)
def hashing(scene: Scene) -> None:
    # As another program has left it, with no record of ours that its bytes are right: so much takes a while.
    scene.open_hub(blob_dir=scene.root)
    scene.hub.add_model(MODEL, {"config.json": "{}", WEIGHTS: Blob(1 << 30, 1)})
    file = scene.hub.repo(MODEL).head.files[WEIGHTS]
    blob = scene.repo_dir / "blobs" / file.etag
    blob.parent.mkdir(parents=True)
    assert file.content.path is not None
    blob.hardlink_to(file.content.path)
    scene.serve()
    scene.ask()
    _moved_twice(scene, _where(scene, "hashing"))


@row(
    "Moved while 5,000 names are linked into the cache, when all bytes are right: it is too late", lasts_s=8, quick=True
)
def linking(scene: Scene) -> None:
    scene.hub.add_model(MODEL, {f"{n % 20}/{n}.txt": "one content" for n in range(5_000)})
    scene.serve()
    scene.ask()
    scene.until("linking")
    answers = _at_once(scene, "pause", "cancel")
    assert answers == {"pause": 409, "cancel": 409}, answers
    scene.completed()
    scene.then("Paused and cancelled at once: both are refused (409), it is completed.")


@row("Moved when it has failed: resumed it goes on, cancelled it is gone; a pause is refused")
def failed(scene: Scene) -> None:
    scene.model(gated="manual")
    scene.serve()
    scene.ask()
    scene.told(status="failed")
    assert scene.move("pause", 409)["advice"]
    scene.move("resume")
    scene.until(status="failed", since=time.monotonic() - 0.5)
    scene.move("cancel")
    scene.move("cancel", 409)
    scene.move("resume", 409)
    scene.outcome.end = "cancelled"


@row("Moved when it is completed: every move is refused, and the model stays")
def completed(scene: Scene) -> None:
    scene.model()
    scene.serve()
    scene.ask()
    scene.until(status="completed")
    for verb in ("pause", "resume", "cancel") * 2:
        assert scene.move(verb, 409)["code"] == "move_not_allowed"
    scene.completed()


@row("Two clients at once, ten times over: one pauses, one cancels", lasts_s=10)
def pause_and_cancel(scene: Scene) -> None:
    _slow_model(scene)
    for _ in range(10):
        scene.ask()
        scene.until("transferring")
        answers = _at_once(scene, "pause", "cancel")
        assert answers["cancel"] == 200 and answers["pause"] in (200, 409), answers
        scene.until(status="cancelled")
    _nothing_left(scene)


@row("Two clients at once, ten times over: one pauses, one resumes", again=None, lasts_s=10)
def pause_and_resume(scene: Scene) -> None:
    slow = _slow_model(scene)
    scene.ask()
    for _ in range(10):
        scene.until("transferring", since=scene.watching.events[-1].at if scene.watching.events else 0)
        answers = _at_once(scene, "pause", "resume")
        assert answers["pause"] == 200 and answers["resume"] in (200, 409), answers
        if answers["resume"] == 409:
            scene.move("resume")
        else:
            scene.watch()
    slow()
    scene.completed()


@row("Two clients at once, ten times over: both cancel", lasts_s=10)
def cancel_twice(scene: Scene) -> None:
    _slow_model(scene)
    for _ in range(10):
        scene.ask()
        scene.until("transferring")
        codes = _together([lambda: _code(scene, "cancel"), lambda: _code(scene, "cancel")])
        assert sorted(codes) == [200, 409], codes
    _nothing_left(scene)


@row("Ten clients ask for the same model at once: one download", again=None)
def asked_at_once(scene: Scene) -> None:
    scene.model(4 * MIB)
    api = scene.serve()
    tasks = _together([lambda: api.download(MODEL)] * 10)
    assert len(set(tasks)) == 1, tasks
    scene.task_id = tasks[0]
    scene.watch()
    scene.completed()


def _slow_model(scene: Scene) -> Callable[[], None]:
    scene.model(8 * MIB)
    slow = scene.slow(1e6)
    scene.serve()
    return slow.clear


def _nothing_left(scene: Scene) -> None:
    left = [path.name for path in (scene.repo_dir / "blobs").glob("*.part*")]
    assert not left, left
    scene.outcome.end = "cancelled each time, nothing partial left"


def _code(scene: Scene, verb: str) -> int:
    assert scene.api is not None
    return scene.api.move(scene.task_id, verb).status


def _at_once(scene: Scene, *verbs: str) -> dict[str, int]:
    codes = _together([partial(_code, scene, verb) for verb in verbs])
    return dict(zip(verbs, codes, strict=True))


def _together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Let all of them begin in the same moment; their answers, in order."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
