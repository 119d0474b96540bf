"""The contender that is a running server: from the POST to `completed`, the whole server's cost."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.job import Job
from benchmarks.measure import LANDING_POLL_S, Cost, Ending, MemoryWatch, cpu_seconds, last_words
from benchmarks.programs import our_environment, ours

START_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0
AT_REST = ("completed", "failed", "cancelled", "paused")


class RunningServer:
    """`mlx-manager serve`, started before the clock. Its memory is watched over its whole life."""

    name = "server"
    title = "`mlx-manager serve`, from the POST"
    checks_hash = True
    is_optional = False

    def missing(self, job: Job) -> str | None:
        return None

    def version(self) -> str:
        return ours().version()

    def files(self, job: Job) -> Path:
        return job.snapshot

    def run(self, job: Job) -> Cost:
        log = job.folder / "output.log"
        with _server(job, log) as process:
            url = _address(process, log)
            if url is None:
                return Cost(Ending.FAILED, 0, 0, 0, last_words(log) or "the server did not start")
            server = psutil.Process(process.pid)
            with MemoryWatch(process.pid, young=False) as memory:
                cpu_before = cpu_seconds(server)
                began = time.perf_counter()
                try:
                    ending, said = _first_byte(url, job) if job.to_first_byte else _completed(url, job)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    ending, said = Ending.FAILED, f"{type(error).__name__}: {error}"
                wall_s = time.perf_counter() - began
                cpu_s = cpu_seconds(server) - cpu_before
        return Cost(ending, wall_s, cpu_s, memory.peak_rss, said or last_words(log))


@contextmanager
def _server(job: Job, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mlx_manager", "serve", "--host", "127.0.0.1", "--port", "0"]
    env = job.environment(**our_environment(job))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=env, cwd=job.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str | None:
    """What the server says of itself, once it listens; None when it ends, or never says it."""
    give_up_at = time.monotonic() + START_WITHIN_S
    while time.monotonic() < give_up_at and process.poll() is None:
        if found := re.search(r"serves (http://127\.0\.0\.1:\d+)", log.read_text(encoding="utf-8", errors="replace")):
            return found[1]
        time.sleep(0.01)
    return None


def _completed(url: str, job: Job) -> tuple[Ending, str]:
    give_up_at = time.monotonic() + job.bound_s
    try:
        for snapshot in _watch(url, _request(url, job), job.bound_s):
            if snapshot["status"] in AT_REST:
                done = snapshot["status"] == "completed"
                return (Ending.DONE, "") if done else (Ending.FAILED, f"{snapshot['status']}: {snapshot['error']}")
            if time.monotonic() > give_up_at:
                return Ending.HUNG, str(snapshot["message"])
    except TimeoutError:
        return Ending.HUNG, "the stream of events went silent"
    return Ending.FAILED, "the stream of events ended before the download did"


def _first_byte(url: str, job: Job) -> tuple[Ending, str]:
    give_up_at = time.monotonic() + job.bound_s
    _request(url, job)
    while not job.cache_landing.has_bytes():
        if time.monotonic() > give_up_at:
            return Ending.HUNG, ""
        time.sleep(LANDING_POLL_S)
    return Ending.DONE, ""


def _request(url: str, job: Job) -> str:
    """Ask for the model; the task's id."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=job.bound_s)
    try:
        body = json.dumps({"model_id": job.repo})
        connection.request("POST", "/api/models/download", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status != 202:
        raise ValueError(f"the server answered {answer.status}: {said[:300]!r}")
    task_id: str = json.loads(said)["task_id"]
    return task_id


def _watch(url: str, task_id: str, timeout_s: float) -> Iterator[dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request("GET", f"/api/models/download/{task_id}/progress")
        answer = connection.getresponse()
        for line in answer:
            if line.startswith(b"data:"):
                yield json.loads(line.removeprefix(b"data:"))
    finally:
        connection.close()
