"""`make fuzz`: schemathesis makes requests out of the server's own OpenAPI document, right ones and wrong ones, and
checks that each answer is one that the document promises: no 5xx, nothing undocumented, nothing wrong accepted.

The server is a process of its own with the access token on, over a hub of its own. Afterwards it must still be well,
and its log may hold no traceback. Ends with 1 when something was found; the seed makes it happen again.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from api_client import MODELS, Api, ServerProcess, environment
from fakes.hub_server import TOKEN, HubServer, mlx_model_files
from mlx_manager.services.access import read_token

MODEL = "mlx-community/Qwen3-0.6B-4bit"
"""The example of the document, so that what is asked for is sometimes there."""
SETTINGS = Path(__file__).with_name("schemathesis.toml")


def main() -> int:
    options = _options()
    print(f"Fuzzing for {options.seconds} s with --seed {options.seed}.", flush=True)
    with tempfile.TemporaryDirectory(prefix="mlx-manager-fuzz-") as folder, HubServer() as hub:
        hub.add_model(MODEL, mlx_model_files(200_000))
        home = Path(folder)
        with ServerProcess(home, hub.url, HF_TOKEN=TOKEN, MLX_MANAGER_ACCESS="token") as server:
            api = server.api()
            data = Path(environment(home, hub.url)["MLX_MANAGER_HOME"])
            header = f"Authorization: Bearer {read_token(data)}"
            found = _schemathesis(api.url, header, options)
            found += _still_well(api, header, data / "logs" / "mlx-manager.log")
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long, in all")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of an earlier run")
    return parser.parse_args()


def _schemathesis(url: str, header: str, options: argparse.Namespace) -> int:
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(SETTINGS), "run", f"{url}/openapi.json"]
    command += ["--header", header, "--seed", str(options.seed), "--max-time", str(options.seconds)]
    # Where it would leave its own folders.
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run(command, check=False, cwd=elsewhere).returncode


def _still_well(api: Api, header: str, log: Path) -> int:
    name, _, value = header.partition(": ")
    for path in ("/health", "/api/system", f"{MODELS}/downloads?limit=500", f"{MODELS}/local"):
        answer = api.call("GET", path, headers={name: value})
        if answer.status != 200:
            print(f"FOUND: afterwards {path} is answered {answer.status}: {answer.body[:300]!r}")
            return 1
    text = log.read_text(encoding="utf-8")
    if "Traceback" in text:
        print("FOUND: a traceback in the log:\n" + text[text.index("Traceback") - 300 :][:4000])
        return 1
    print("The server is well, and its log holds no traceback.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
