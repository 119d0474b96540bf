"""A model as it is typed, and as it would be typed again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mlx_manager.domain.catalog import ModelRequest, check_request


def parse_model(spec: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> ModelRequest:
    """ORG/MODEL[@REV] with patterns. Raises InvalidModelId, InvalidRevision, InvalidPatterns."""
    model_id, at, revision = spec.partition("@")
    return check_request(model_id, revision if at else "main", include or None, exclude or None)


def command_for(wanted: ModelRequest) -> str:
    """What to type to go on, ready for a shell."""
    spec = wanted.model_id if wanted.revision == "main" else f"{wanted.model_id}@{wanted.revision}"
    typed = ["mlx-manager", "pull", spec]
    for option, patterns in (("--include", wanted.allow_patterns), ("--exclude", wanted.ignore_patterns)):
        for pattern in patterns or ():
            typed += [option, pattern]
    return shlex.join(typed)
