"""`make demo`: a small hub with slow links, and the real server in front of it, in a folder that is removed after."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from demo.models import fill
from fakes.hub_server import HubServer

PER_CONNECTION = 400_000
"""Bytes per second: slow enough to watch, fast enough not to wait."""
LIVELY = (1, 2, 3, 6)
"""The models that are asked for at the start, so that the page has something to show."""
PATIENCE_S = 60.0


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="mlx-manager-demo-") as folder:
        root = Path(options.dir or folder)
        root.mkdir(parents=True, exist_ok=True)
        print("Making a few models …", flush=True)
        with HubServer(rate=options.rate, latency=0.03) as hub:
            shown = fill(hub)
            environment = {
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(root / "huggingface"),
                "MLX_MANAGER_HOME": str(root / "mlx-manager"),
                "MLX_MANAGER_PORT": str(options.port),
                # The demo's hub is on this machine, whatever proxy leads to the real one.
                "NO_PROXY": "127.0.0.1,localhost",
                "no_proxy": "127.0.0.1,localhost",
            }
            for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
                environment.pop(name, None)
            _explain(shown, root, options.port)
            begun = [] if options.still else [shown[i][0] for i in LIVELY]
            threading.Thread(target=_begin, args=(options.port, begun), daemon=True).start()
            return _serve(environment)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--port", type=int, default=10242, help="port of the server (10242)")
    parser.add_argument("--rate", type=float, default=PER_CONNECTION, help="bytes per second of each connection")
    parser.add_argument("--still", action="store_true", help="begin no download: an empty library, as on the first day")
    parser.add_argument("--dir", help="keep everything here instead of in a folder that is removed")
    return parser.parse_args()


def _explain(shown: list[tuple[str, str]], root: Path, port: int) -> None:
    print("\nModels on the demo's hub:\n")
    for model_id, what in shown:
        print(f"  {model_id:24} {what}")
    print(f"\nOpen http://127.0.0.1:{port} in a browser.\n\nOr in another terminal, in this folder:\n")
    print(f"  export MLX_MANAGER_HOME={root / 'mlx-manager'} HF_HOME={root / 'huggingface'}")
    print(f"  .venv/bin/mlx-manager pull {shown[1][0]}\n")
    print("Ctrl-C ends the demo.\n", flush=True)


def _begin(port: int, models: list[str]) -> None:
    """Ask for the models as soon as the server answers."""
    url = f"http://127.0.0.1:{port}/api/models/download"
    give_up_at = time.monotonic() + PATIENCE_S
    while models and time.monotonic() < give_up_at:
        body = json.dumps({"model_id": models[0]}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except (ConnectionError, urllib.error.URLError):
            time.sleep(0.2)  # it is not there yet
        else:
            del models[0]


def _serve(environment: dict[str, str]) -> int:
    """Run the server until it ends or Ctrl-C reaches both of us."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    # The server hears Ctrl-C itself; this process only waits for it, to remove the folder after it.
    restore = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    server = subprocess.Popen([sys.executable, "-m", "mlx_manager", "serve"], env=environment, **restore)  # type: ignore[call-overload]
    try:
        return int(server.wait())
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
