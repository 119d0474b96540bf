"""One person's machine and one Hub, made for one row of the matrix and gone after it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from api_client import Api, Event, ServerProcess
from fakes.hub_server import Fault, FaultHandle, HubServer, mlx_model_files
from faults.watch import Watch

MODEL = "mlx-community/Faulty-1B-4bit"
WEIGHTS = "model.safetensors"
BIG = "*.safetensors"
PATIENCE_S = 60.0
"""A hard bound, far beyond any promise: who waits so long has been let down."""
TERMINAL = ("completed", "failed", "cancelled")

T = TypeVar("T")


@dataclass
class Seen:
    """What the person was told, and how many seconds after it could be known; None where that says nothing."""

    phase: str
    message: str
    advice: str
    after_s: float | None


@dataclass
class Outcome:
    """What a row came to. ``said``: all that was told of the fault, in order; ``then``: what was done about it."""

    said: list[Seen] = field(default_factory=list)
    then: list[str] = field(default_factory=list)
    end: str = ""
    again: int | None = None


class Scene:
    """``hub`` serves from the first use on; ``serve`` starts the product. Moments are of the monotonic clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outcome = Outcome()
        self._stack = ExitStack()
        self._hub: HubServer | None = None
        self._server: ServerProcess | None = None
        self._env: dict[str, str] = {}
        self._prefix: Sequence[str] = ()
        self._watch: Watch | None = None
        self._watches: list[Watch] = []
        self._knowable = 0.0
        self.api: Api | None = None
        self.task_id = ""
        self.model_id = MODEL
        self.cache = root / "hf" / "hub"

    def close(self) -> None:
        """End everything, the server first."""
        if self._server is not None:
            self._server.__exit__(None, None, None)
        for watch in self._watches:
            watch.close()
        self._stack.close()

    def enter(self, thing: AbstractContextManager[T]) -> T:
        """Keep something until the row has ended."""
        return self._stack.enter_context(thing)

    # -- the Hub

    @property
    def hub(self) -> HubServer:
        """The Hub that this machine knows."""
        return self._hub or self.open_hub()

    def open_hub(self, **options: Any) -> HubServer:
        """Have a Hub with these options."""
        assert self._hub is None, "there is a Hub already"
        self._hub = self.enter(HubServer(**options))
        return self._hub

    def model(self, size: int = 4 << 20, *, shards: int = 1, model_id: str = MODEL, **options: Any) -> None:
        """Put a model on the Hub; the row is about it."""
        self.model_id = model_id
        self.hub.add_model(model_id, mlx_model_files(size, shards=shards), **options)

    def slow(self, bytes_per_second: float = 2e6) -> FaultHandle:
        """Have one line for all bytes of files, slow enough to do something meanwhile."""
        return self.hub.fault(Fault.rate(bytes_per_second, shared=True), where="content")

    # -- the product

    def serve(self, *, prefix: Sequence[str] = (), **env: str) -> Api:
        """Start the server. ``prefix``: a command to start it with; ``env``: its settings."""
        self._env = {
            "HOME": str(self.root),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # As people have it, but for the waits: three seconds of silence are one, and so on.
            "MLX_MANAGER_HUB_TIMEOUT_S": "6",
            "MLX_MANAGER_SIZE_CHECK_S": "8",
            "MLX_MANAGER_STALL_S": "6",
            "MLX_MANAGER_LOG_LEVEL": "INFO",
            **env,
        }
        self._prefix = prefix
        return self._start()

    def _start(self) -> Api:
        self._server = ServerProcess(
            self.root,
            self._env.get("HF_ENDPOINT", self.hub.url),
            prefix=self._prefix,
            command=[sys.executable, "-m", "mlx_manager", "serve"],
            **{name: value for name, value in self._env.items() if name != "HF_ENDPOINT"},
        )
        self.api = self._server.api()
        return self.api

    def unbind(self) -> None:
        """From the next start on it runs without a prefix."""
        self._prefix = ()

    @property
    def server(self) -> ServerProcess:
        assert self._server is not None, "nothing was started"
        return self._server

    def kill(self) -> None:
        """End the server as the kernel does when memory is short."""
        self.server.process.kill()
        self.server.process.wait()

    def restart(self, **env: str) -> None:
        """Start the server anew, in the same home, and watch again."""
        self.server.__exit__(None, None, None)
        self._env |= env
        self._start()
        if self.task_id:
            self.watch()

    def ask(self, **more: object) -> str:
        """Ask for the model, and watch it."""
        assert self.api is not None, "no server"
        self._knowable = time.monotonic()
        self.task_id = self.api.download(self.model_id, **more)
        self.watch()
        return self.task_id

    def watch(self) -> None:
        """Look at it from now on."""
        self._watch = Watch(self._current, self.task_id)
        self._watches.append(self._watch)

    def _current(self) -> Api:
        assert self.api is not None
        return self.api

    @property
    def watching(self) -> Watch:
        assert self._watch is not None, "nobody watches"
        return self._watch

    # -- what must come true

    def knowable(self, at: float | None = None) -> None:
        """From this moment on (now, by default) it could be known."""
        self._knowable = time.monotonic() if at is None else at

    def struck(self, fault: FaultHandle, hits: int = 1) -> None:
        """It can be known since the fault struck."""
        self._knowable = fault.wait_hit(hits, timeout=PATIENCE_S).at

    def sent(self, nbytes: int) -> None:
        """Wait until so many bytes of files have left the Hub."""
        self.hub.wait_sent(nbytes, timeout=PATIENCE_S)

    def until(
        self,
        phase: str | None = None,
        text: str = "",
        *,
        since: float = 0.0,
        status: str | None = None,
        held: bool = False,
    ) -> Event:
        """Wait until this is told, ``since`` then; nothing is noted."""

        def wanted(event: Event) -> bool:
            data = event.data
            said = " ".join(str(data[name]) for name in ("message", "error", "error_code") if data[name])
            return (
                phase in (None, data["phase"])
                and status in (None, data["status"])
                and re.search(text, said, re.IGNORECASE) is not None
            )

        event = self.watching.first(wanted, PATIENCE_S, since, held=held)
        last = [(e.data["status"], e.data["phase"], e.data["message"]) for e in self.watching.events[-6:]]
        assert event is not None, f"never told: {status or ''} {phase or ''} {text!r}; the last were {last}"
        return event

    def told(self, phase: str | None = None, text: str = "", *, status: str | None = None, held: bool = True) -> Event:
        """The person is told this, of what became knowable last. ``held``: what was told before and still held then
        will do."""
        event = self.until(phase, text, since=self._knowable, status=status, held=held)
        self.note(event.data, self.after(event))
        return event

    def after(self, event: Event) -> float:
        """How long after it could be known this was told."""
        return max(0.0, event.at - self._knowable)

    def note(self, data: Mapping[str, Any], after_s: float | None) -> None:
        """Put what was told into the row."""
        phase = data["phase"] or data["status"]
        self.outcome.said.append(Seen(phase, data["message"], data["advice"] or "", after_s))

    def then(self, what: str) -> None:
        """What the person, or the world, does next."""
        self.outcome.then.append(what)

    def move(self, verb: str, status: int = 200) -> dict[str, Any]:
        """Pause, resume or cancel; after a resume it is watched anew."""
        assert self.api is not None
        answer = self.api.move(self.task_id, verb)
        assert answer.status == status, answer
        if verb == "resume" and status == 200:
            self.watch()
        return dict(answer.json)

    def resume(self, why: str) -> None:
        """The person resumes; what is told from now on is told of that."""
        self.then(why)
        self.knowable()
        self.move("resume")

    def start_refused(self, reason: str) -> None:
        """A start in this environment fails, and says why on stderr, by the time the process ends."""
        command = [sys.executable, "-m", "mlx_manager", "serve"]
        env = self.server.env
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        said = " ".join(done.stderr.split())
        assert done.returncode == 1 and re.search(reason, said), said
        self.outcome.said.append(Seen("(stderr)", said, "", None))

    def completed(self, again: int | None = None) -> dict[str, Any]:
        """It ends well: the cache holds every byte as the Hub has it, and nothing partial."""
        event = self.until(status="completed", since=self._knowable, held=True)
        self.outcome.end = "completed"
        self.right()
        self.outcome.again = max(0, self.hub.bytes_sent() - self.size) if again is None else again
        return event.data

    def failed(self, code: str, *, at_last: bool = False) -> dict[str, Any]:
        """It ends with this error, and nothing wrong is in the cache. ``at_last``: after a bounded number of tries that
        were told as such."""
        event = self.until(status="failed", since=self._knowable, held=True)
        self.note(event.data, None if at_last else self.after(event))
        data = event.data
        assert data["error_code"] == code, data
        assert data["advice"], data
        self.outcome.end = f"failed: `{code}`"
        self.nothing_wrong()
        return data

    def paused(self, code: str) -> dict[str, Any]:
        """It pauses by itself with this error, all bytes kept."""
        data = self.told(status="paused").data
        assert data["error_code"] == code, data
        assert data["advice"], data
        self.outcome.end = f"paused: `{code}`"
        self.nothing_wrong()
        return data

    # -- the files

    @property
    def size(self) -> int:
        """Bytes of the model at `main`, each content once."""
        files = self.hub.repo(self.model_id).head.files.values()
        return sum({file.etag: file.content.size for file in files}.values())

    @property
    def repo_dir(self) -> Path:
        return self.cache / f"models--{self.model_id.replace('/', '--')}"

    def right(self, commit: str | None = None) -> None:
        """Every file of the snapshot is what the Hub holds, and nothing else is left of the download."""
        at = self.hub.repo(self.model_id).commit(commit or "main")
        snapshot = self.repo_dir / "snapshots" / at.sha
        for path, file in at.files.items():
            assert _sha256(snapshot / path) == file.content.sha256, f"{path} is wrong"
        left = [path.name for path in (self.repo_dir / "blobs").glob("*.part*")]
        assert not left, f"left over: {left}"

    def nothing_wrong(self) -> None:
        """Whatever the cache holds under a final name is what that name says."""
        contents = {
            file.etag: file.content.sha256
            for commit in self.hub.repo(self.model_id).commits.values()
            for file in commit.files.values()
        }
        for blob in (self.repo_dir / "blobs").glob("*"):
            if ".part" not in blob.name:
                assert _sha256(blob) == contents[blob.name], f"{blob.name} is wrong"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
