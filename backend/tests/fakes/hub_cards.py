"""What the Hub reads out of a repo's files: the card's front matter, the tags that follow from it, the config, and the
types and counts in the headers of its safetensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from fakes.hub_blobs import Content
from fakes.hub_repo import Commit

MOST_CARD = 1 << 20


def card_of(commit: Commit) -> dict[str, Any]:
    """The front matter of the README, which is YAML between two lines of dashes."""
    file = commit.files.get("README.md")
    text = "" if file is None else file.content.read(0, min(file.content.size, MOST_CARD)).decode("utf-8", "replace")
    if not text.startswith("---\n"):
        return {}
    try:
        card = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return {}
    return card if isinstance(card, dict) else {}


def tags_of(commit: Commit, given: list[str]) -> list[str]:
    """The tags that a test gave, and those that the Hub makes of the card and the config."""
    card = card_of(commit)
    tags = [*given, *(str(tag) for tag in card.get("tags") or [])]
    if licence := card.get("license"):
        tags.append(f"license:{licence}")
    base = card.get("base_model")
    for model in base if isinstance(base, list) else [base] if base else []:
        tags += [f"base_model:{model}", f"base_model:quantized:{model}"]
    config = config_of(commit)
    if isinstance(config.get("model_type"), str):
        tags.append(config["model_type"])
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict) and quantised.get("bits"):
        tags.append(f"{quantised['bits']}-bit")
    return list(dict.fromkeys(tags))


def config_of(commit: Commit) -> dict[str, Any]:
    """What the Hub shows of a commit's config.json and tokenizer_config.json."""
    config = _json(commit, "config.json")
    shown: dict[str, Any] = {
        key: config[key] for key in ("architectures", "model_type", "quantization_config") if key in config
    }
    tokenizer = _json(commit, "tokenizer_config.json")
    told = {key: tokenizer[key] for key in ("bos_token", "chat_template", "eos_token") if key in tokenizer}
    if told:
        shown["tokenizer_config"] = told
    return shown


def safetensors_of(commit: Commit) -> dict[str, Any] | None:
    """How many values of each type the model's safetensors hold, as they lie there."""
    counts: dict[str, int] = {}
    for path, file in commit.files.items():
        if path.startswith("model") and path.endswith(".safetensors"):
            for dtype, count in _counts(file.content).items():
                counts[dtype] = counts.get(dtype, 0) + count
    return {"parameters": counts, "total": sum(counts.values())} if counts else None


@lru_cache(maxsize=4096)
def _counts(content: Content) -> Mapping[str, int]:
    try:
        (length,) = struct.unpack("<Q", content.read(0, 8))
        header = json.loads(content.read(8, 8 + min(length, 100 << 20)))
        counts: dict[str, int] = {}
        for name, tensor in header.items():
            if name != "__metadata__":
                number = 1
                for one in tensor["shape"]:
                    number *= one
                counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + number
    except (struct.error, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return counts


def _json(commit: Commit, path: str) -> dict[str, Any]:
    file = commit.files.get(path)
    try:
        document = json.loads(file.content.read(0, file.content.size)) if file else {}
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
