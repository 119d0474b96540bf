"""`mlx-manager` as people run it: a process with a home of its own, in a pipe or on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PATIENCE_S = 20.0
BACKEND = Path(__file__).resolve().parent.parent
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass
class Home:
    """A person's machine, as far as the command line sees it: environment and folders. ``hub_url``: the only Hub."""

    root: Path
    hub_url: str
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def cache(self) -> Path:
        return self.root / "hf" / "hub"

    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm-256color",
            "PYTHONPATH": str(BACKEND),
            "PYTHONWARNINGS": "error",
            "MLX_MANAGER_HOME": str(self.data),
            "MLX_MANAGER_PORT": "0",
            "HF_HOME": str(self.root / "hf"),
            "HF_ENDPOINT": self.hub_url,
            **self.extra,
        }

    def run(self, *arguments: str) -> Result:
        """Run to the end."""
        with self.start(*arguments) as running:
            return running.wait()

    @contextmanager
    def start(self, *arguments: str) -> Iterator[Running]:
        running = Running(_command(arguments), self.env())
        try:
            yield running
        finally:
            running.end()

    @contextmanager
    def on_terminal(self, *arguments: str, columns: int = 80, rows: int = 24) -> Iterator[Screen]:
        screen = Screen(_command(arguments), self.env(), columns, rows)
        try:
            yield screen
        finally:
            screen.end()

    def snapshot_of(self, model_id: str) -> Path:
        """The one snapshot of a model in the cache."""
        (found,) = (self.cache / f"models--{model_id.replace('/', '--')}" / "snapshots").iterdir()
        return found


def _command(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "mlx_manager", *arguments]


class Running:
    """A process whose output is read as it comes."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._said: dict[str, list[str]] = {"out": [], "err": []}
        self._ended = 0
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=("out", self._process.stdout)),
            threading.Thread(target=self._read, args=("err", self._process.stderr)),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def send_until_end(self, number: signal.Signals) -> None:
        """Like somebody who loses patience."""
        deadline = time.monotonic() + PATIENCE_S
        while self._process.poll() is None and time.monotonic() < deadline:
            self.send(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)

    def wait(self) -> Result:
        self._process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return Result(self._process.returncode, "".join(self._said["out"]), "".join(self._said["err"]))

    def wait_line(self, wanted: Callable[[str], bool], stream: str = "out") -> str:
        """The first line that is wanted, as soon as it is there."""
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                for line in self._said[stream]:
                    if wanted(line):
                        return line
                if self._ended == 2 or not self._news.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"not said: {self._said}")

    def wait_snapshot(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first snapshot of `--json` that is wanted."""
        found: dict[str, Any] = json.loads(self.wait_line(lambda line: wanted(json.loads(line))))
        return found

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()

    def _read(self, stream: str, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                with self._news:
                    self._said[stream].append(line)
                    self._news.notify_all()
        with self._news:
            self._ended += 1
            self._news.notify_all()


class Screen:
    """A process on a terminal of its own."""

    def __init__(self, command: list[str], env: dict[str, str], columns: int, rows: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = subprocess.Popen(
            command, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, close_fds=True
        )
        os.close(slave)
        self._bytes = b""

    @property
    def raw(self) -> str:
        return self._bytes.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """All that was ever written, line after line, without colours; a line that is written anew is a new one."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n").replace("\r", "\n")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_text(self, wanted: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while wanted not in self.text:
            if not self._read(deadline):
                raise TimeoutError(f"{wanted!r} is not on the screen: {self.text[-2000:]}")

    def wait(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            # How Linux says that nobody has the terminal open any more.
            return False
        self._bytes += data
        return bool(data)
