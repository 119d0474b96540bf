"""Model ids, revisions and patterns as the Hub allows them; the size that a model's name promises."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_manager.errors import InvalidModelId, InvalidPatterns, InvalidRevision

_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._/+-]*")
MAX_ID = 96
MAX_PATTERNS = 100
MAX_PATTERN = 500
MAX_REVISION = 250


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What was asked for. Two equal requests in flight are one download."""

    model_id: str
    revision: str = "main"
    allow_patterns: tuple[str, ...] | None = None
    ignore_patterns: tuple[str, ...] | None = None


def check_request(
    model_id: str,
    revision: str = "main",
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
) -> ModelRequest:
    """Raises InvalidModelId, InvalidRevision, InvalidPatterns."""
    return ModelRequest(
        check_model_id(model_id),
        check_revision(revision),
        _check_patterns("allow_patterns", allow_patterns),
        _check_patterns("ignore_patterns", ignore_patterns),
    )


def check_model_id(model_id: str) -> str:
    """ORG/MODEL by the Hub's rules: letters, digits, ``-_.``, 96 characters at most. Raises InvalidModelId."""
    org, slash, name = model_id.partition("/")
    if not model_id.strip():
        raise InvalidModelId("The model id is empty.")
    if len(model_id) > MAX_ID:
        raise InvalidModelId(f"The model id has {len(model_id)} characters; the Hub allows {MAX_ID}.")
    if not slash or "/" in name:
        raise InvalidModelId(f"{model_id!r} is not of the form ORG/MODEL.")
    for part in (org, name):
        if not _PART.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
            raise InvalidModelId(f"{model_id!r} has a part {part!r} that the Hub does not allow in a name.")
    return model_id


def check_revision(revision: str) -> str:
    """A branch, tag, commit or refs/pr/N. Raises InvalidRevision."""
    if not _REVISION.fullmatch(revision) or len(revision) > MAX_REVISION or ".." in revision or "//" in revision:
        raise InvalidRevision(f"{revision[:80]!r} is not the name of a branch, tag or commit.")
    # Git knows no part of a name that begins with a dot; "." alone would be the folder of all refs.
    if revision.endswith(("/", ".lock")) or "/." in f"/{revision}":
        raise InvalidRevision(f"{revision[:80]!r} is not the name of a branch, tag or commit.")
    return revision


def _check_patterns(field: str, patterns: Sequence[str] | None) -> tuple[str, ...] | None:
    if patterns is None:
        return None
    if len(patterns) > MAX_PATTERNS or any(not p.strip() or len(p) > MAX_PATTERN for p in patterns):
        raise InvalidPatterns(f"{field} holds an empty or over-long pattern, or more than {MAX_PATTERNS} of them.")
    # JSON can spell half of a surrogate pair, which is no text: neither the ledger nor an answer could hold it.
    if any("\0" in p or any("\ud800" <= char <= "\udfff" for char in p) for p in patterns):
        raise InvalidPatterns(f"{field} holds a character that no file name has.")
    # An empty list means nothing was asked for, and the order of patterns does not change what they match.
    return tuple(sorted(set(patterns))) or None


_SIZES = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([BbMmTt])(?![A-Za-z0-9])")
_BITS = re.compile(r"(?<![A-Za-z0-9])(\d{1,2})[-_]?bits?(?![A-Za-z])|(?<![A-Za-z0-9])[qQ](\d)(?![0-9])", re.IGNORECASE)
_UNIT = {"M": 1e6, "B": 1e9, "T": 1e12}
# Bits a weight takes with its scales and biases; groups of 64 unless the format says otherwise.
_FORMATS = (("mxfp4", 4.25), ("nvfp4", 4.5), ("mxfp8", 8.25), ("dwq", 4.5), ("fp8", 8.25), ("awq", 4.5))
_PLAIN = (("float32", 32.0), ("fp32", 32.0), ("bf16", 16.0), ("fp16", 16.0), ("float16", 16.0), ("bfloat16", 16.0))
# Experts of a mixture share attention and embeddings; of "NxM" about this part is really N times there.
_MIXTURE_SHARE = 0.83
# "17B-16E" counts the active weights alone and does not tell the size of an expert.
_EXPERTS_ALONE = re.compile(r"(?<![A-Za-z0-9])\d+E(?![A-Za-z0-9])")


def estimate_size(model_id: str) -> int | None:
    """Bytes on disk as the name suggests, None where the name says nothing: no guess is better than a wrong one.

    ``Qwen3-0.6B-4bit``: 0.6e9 weights of 4.5 bits. ``30B-A3B`` counts 30 (the active part is no size on disk).
    """
    name = model_id.rpartition("/")[2]
    weights = _weights(name)
    return None if weights is None else int(weights * _bits(name) / 8)


def estimate_weights(model_id: str) -> int | None:
    """How many parameters the name promises; None where it says nothing."""
    weights = _weights(model_id.rpartition("/")[2])
    return None if weights is None else int(weights)


def _weights(name: str) -> float | None:
    if _EXPERTS_ALONE.search(name):
        return None
    found = []
    for times, number, unit in _SIZES.findall(name):
        weights = float(number) * _UNIT[unit.upper()]
        found.append(weights * int(times) * _MIXTURE_SHARE if times else weights)
    return max(found, default=None)


def _bits(name: str) -> float:
    lowered = name.lower()
    for word, bits in _FORMATS[:3]:
        if word in lowered:
            return bits
    if match := _BITS.search(name):
        bits = int(match[1] or match[2])
        return bits + 0.5 if bits <= 8 else float(bits)
    for word, plain in (*_FORMATS[3:], *_PLAIN):
        if re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", lowered):
            return plain
    return 16.0
