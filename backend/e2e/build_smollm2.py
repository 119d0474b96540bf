"""Build a real MLX model folder, SmolLM2-135M-Instruct, with nothing but a package index within reach.

    python build_smollm2.py --cache DIR

prints the folder's path. What is in the cache is used again; building anew gives the same bytes.
Needs the packages of requirements.txt beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import gguf_wheel

MODEL_NAME: Final = "SmolLM2-135M-Instruct"
SOURCES: Final = ("gguf_wheel.py", "mlx_weights.py", "model_texts.py", "build_smollm2.py")


def build(cache: Path) -> Path:
    """Return the model folder inside ``cache``; build it unless these very sources have built it before.

    May be called by several processes at once: the folder appears complete or not at all.
    """
    place = cache / f"{MODEL_NAME}-{_recipe_id()}"
    if place.is_dir():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    # As the caches of pytest and ruff do: half a gigabyte must not end up in a commit by accident.
    (cache / ".gitignore").write_text("*\n", encoding="utf-8")
    source = gguf_wheel.fetch(cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as scratch:
        folder = Path(scratch, MODEL_NAME)
        folder.mkdir()
        _write(source, folder)
        gguf_wheel.publish(folder, place)
    return place


def _write(source: gguf_wheel.Source, folder: Path) -> None:
    # Late, so that a folder from the cache costs no import of MLX.
    import mlx.core as mx

    import mlx_weights
    import model_texts

    loaded: Any = mx.load(str(source.gguf), return_metadata=True)
    tensors, metadata = loaded
    mlx_weights.write_shards(
        tensors,
        folder,
        heads=model_texts.number(metadata, "llama.attention.head_count"),
        kv_heads=model_texts.number(metadata, "llama.attention.head_count_kv"),
    )
    model_texts.write_texts(metadata, folder, requirement=gguf_wheel.REQUIREMENT)
    shutil.copyfile(source.license, folder / "LICENSE")


def _recipe_id() -> str:
    """A short hash over the code that decides what is built: edit it, and the cached folder is not used any more."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:12]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the wheel and the model")
    try:
        folder = build(parser.parse_args().cache.resolve())
    except gguf_wheel.SourceUnavailable as error:
        print(error, file=sys.stderr)
        return os.EX_UNAVAILABLE
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
