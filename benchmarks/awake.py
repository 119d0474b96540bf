"""Does the server stay awake? With a large download at full speed and many watchers: how long does an answer take.

`python -m benchmarks.awake`: a hub process, a server process, and here the watchers and one who asks again and again.
`/health` does nothing but pass through the server's loop, so its slowest answers bound the loop's lag.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.job import ROOT

ASK_EVERY_S = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.awake", description=__doc__)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--mib", type=int, default=256, help="size of each file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="awake-") as folder:
        root = Path(folder)
        files = {f"model-{i:05}.safetensors": {"size": options.mib << 20, "seed": i} for i in range(options.files)}
        spec = root / "models.json"
        spec.write_text(json.dumps({"bench/awake": {"files": files}}))
        hub = _start([sys.executable, "-m", "fakes.hub_server", "--models-file", str(spec)], root, {})
        try:
            endpoint = json.loads(hub.stdout.readline())["endpoint"]  # type: ignore[union-attr]
            environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(root / "hf"), "MLX_MANAGER_HOME": str(root / "home")}
            server = _start([sys.executable, "-m", "mlx_manager", "serve", "--port", "0"], root, environment)
            try:
                asyncio.run(_measure(_address(server), options.watchers))
            finally:
                _end(server)
        finally:
            _end(hub)
    return 0


def _start(command: list[str], folder: Path, more: dict[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/backend:{ROOT}/backend/tests", **more}
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]


def _address(server: subprocess.Popen[str]) -> tuple[str, int]:
    for line in server.stdout or ():
        if found := re.search(r"serves (http://\S+)", line):
            parts = urlsplit(found[1])
            return str(parts.hostname), int(parts.port or 0)
    raise RuntimeError("the server did not start")


async def _call(address: tuple[str, int], method: str, path: str, body: str = "") -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    head = f"{method} {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def _watch(address: tuple[str, int], path: str) -> int:
    return (await _call(address, "GET", path)).count(b"data:")


async def _measure(address: tuple[str, int], watchers: int) -> None:
    asked = json.dumps({"model_id": "bench/awake"})
    begun = time.perf_counter()
    task_id = json.loads(await _call(address, "POST", "/api/models/download", asked))["task_id"]
    base = f"/api/models/download/{task_id}"
    watching = [asyncio.create_task(_watch(address, f"{base}/progress")) for _ in range(watchers)]
    took: dict[str, list[float]] = {f"{base}/status": [], "/health": []}
    while True:
        for path, times in took.items():
            at = time.perf_counter()
            answer = await _call(address, "GET", path)
            times.append(time.perf_counter() - at)
            if path.endswith("status") and json.loads(answer)["status"] in ("completed", "failed"):
                seconds = time.perf_counter() - begun
                events = await asyncio.gather(*watching)
                _tell(json.loads(answer), seconds, took, events)
                return
        await asyncio.sleep(ASK_EVERY_S)


def _tell(done: dict[str, object], seconds: float, took: dict[str, list[float]], events: list[int]) -> None:
    if done["error"]:
        print(done["error"])
    print(f"{done['status']}, {int(str(done['total_bytes'])) / 1e6 / seconds:.0f} MB/s for {seconds:.1f} s")
    print(f"{len(events)} watchers, {min(events)} to {max(events)} events each")
    for path, times in took.items():
        times.sort()
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        name = "status" if path.endswith("status") else path
        figures = f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, worst {times[-1] * 1000:.1f} ms"
        print(f"{name}: {len(times)} answers, {figures}")


if __name__ == "__main__":
    sys.exit(main())
