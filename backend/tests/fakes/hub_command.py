"""The hub as a process: `python -m fakes.hub_server`, for the demo and for benchmarks.

Prints one line of JSON when it listens, {"endpoint", "cdn", "pid", "tokens", "models"} and with --xet "cas", and serves
until SIGTERM or SIGINT, or with --until-eof until its standard input ends, so that it can't outlive the one that
started it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

from fakes.hub_blobs import Blob, Source
from fakes.hub_faults import Fault
from fakes.hub_models import mlx_model_files
from fakes.hub_server import TOKEN, HubServer

MODELS_FILE = """
the models file is a JSON object of models by their id; all that a model may say:
  {"org/name": {"size": "1GiB", "shards": 2, "bits": 4, "seed": 0, "gated": false, "private": false,
                "tags": ["mlx"], "downloads": 0, "likes": 0, "xet": true,
                "files": {"extra.txt": "its text", "extra.bin": {"size": "10MiB", "seed": 1}}}}
"""


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to end."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hub = HubServer(
        tokens=dict.fromkeys(options.token or [TOKEN], "tester"),
        page_size=options.page_size,
        latency=options.latency,
        rate=options.rate,
        port=options.port,
        tls=_tls(*options.tls) if options.tls else None,
        cdn_port=options.cdn_port,
        blob_dir=options.blob_dir,
        control=True,
        xet=options.xet,
    )
    try:
        if options.line:
            hub.fault(Fault.rate(options.line, shared=True))
        models = _add_models(hub, options)
        hub.start()
        hello = {"endpoint": hub.url, "cdn": hub.cdn_url, "pid": os.getpid(), "models": models}
        if options.xet:
            hello["cas"] = hub.cas_url
        print(json.dumps({**hello, "tokens": options.token or [TOKEN]}), flush=True)
        if options.until_eof:
            sys.stdin.buffer.read()
        else:
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        hub.stop()
    return 0


def nbytes(text: str) -> int:
    """Return a size given like 4096, 100M, 1.5GB or 2GiB; M and MiB are 2^20 bytes, MB is a million."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B?)", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"not a size: {text}")
    number, prefix, unit = match.groups()
    base = 1000 if unit.upper() == "B" else 1024
    return int(float(number) * base ** " KMGT".index(prefix.upper() or " "))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fakes.hub_server",
        description=__doc__,
        epilog=MODELS_FILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", action="append", default=[], metavar="ORG/NAME=SIZE", help="serve a generated model of this size")
    add("--models-file", type=Path, help="serve the models that this JSON file describes")
    add("--dir", type=Path, help="serve what lies in this folder as ORG/NAME/…")
    add("--port", type=int, default=0)
    add("--cdn-port", type=int, default=0)
    add("--tls", type=Path, nargs=2, metavar=("CERT", "KEY"), help="speak TLS with this certificate, in PEM")
    add("--token", action="append", help="a token that is valid; may be repeated")
    add("--rate", type=nbytes, help="bytes a second for each response")
    add("--line", type=nbytes, help="bytes a second for all together")
    add("--latency", type=float, default=0, help="seconds before each answer")
    add("--page-size", type=int, default=1000)
    add("--blob-dir", type=Path, help="keep generated content here, for the next start to find")
    add("--xet", action="store_true", help="serve large files by Xet too")
    add("--until-eof", action="store_true", help="end when standard input ends")
    return parser


def _tls(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def _add_models(hub: HubServer, options: argparse.Namespace) -> dict[str, str]:
    models: dict[str, str] = {}
    for given in options.model:
        repo_id, _, size = given.partition("=")
        models[repo_id] = hub.add_model(repo_id, mlx_model_files(nbytes(size or "1M")))
    if options.models_file:
        for repo_id, model in json.loads(options.models_file.read_text()).items():
            models[repo_id] = _add_described(hub, repo_id, dict(model))
    if options.dir:
        for folder in sorted(path for path in options.dir.glob("*/*") if path.is_dir()):
            repo_id = folder.relative_to(options.dir).as_posix()
            models[repo_id] = hub.add_folder(repo_id, folder)
    return models


def _add_described(hub: HubServer, repo_id: str, model: dict[str, Any]) -> str:
    extra: dict[str, Any] = model.pop("files", {})
    shape = {key: model.pop(key) for key in ("shards", "bits", "seed") if key in model}
    files: dict[str, Source] = {}
    if "size" in model:
        files = mlx_model_files(nbytes(str(model.pop("size"))), **shape)
    for path, source in extra.items():
        described = isinstance(source, dict)
        files[path] = Blob(nbytes(str(source["size"])), int(source.get("seed", 0))) if described else str(source)
    xet = dict.fromkeys(files, bool(model.pop("xet", True)))
    return hub.add_model(repo_id, files, xet=xet, **model)
