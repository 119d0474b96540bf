"""What was read of the cache, kept on the disk for the next process: reading a large one anew costs a second.

One file in the data folder. It is a convenience and never the truth: each model of it is held against the disk before
it is believed (`library`), and a file that is broken, of another form or of another cache is as if it were not there.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_manager.domain.library import LocalModel, LocalRevision
from mlx_manager.services import drafts
from mlx_manager.services.hf_cache.reading import ReadModel

log = logging.getLogger(__name__)

FORM = 2
"""Of what the file says, and of how a model is read: one more when either changes."""
_MODEL = ("model_id", "size_bytes", "partial_bytes", "modified_at", "last_used_at")
_REVISION = ("commit", "files", "files_total", "size_bytes", "complete", "missing_files", "missing_bytes")


def recall(file: Path, cache_dir: Path) -> dict[str, ReadModel]:
    """The models that were kept of this cache, by the names of their folders; none where nothing can be believed."""
    try:
        head, _, body = file.read_bytes().partition(b"\n")
        if head != _head(cache_dir, body):
            return {}
        return {name: _model(f"{cache_dir}/{name}", row) for name, row in json.loads(body).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        log.debug("%s is not used: %s", file, error)
        return {}


def remember(file: Path, cache_dir: Path, models: Mapping[str, ReadModel]) -> None:
    """Keep them. A disk that refuses costs the next process its time, no more."""
    try:
        device = cache_dir.stat().st_dev
        rows = {
            name: _row(len(f"{cache_dir}/{name}"), read)
            for name, read in models.items()
            # The number of another disk may be another's when this one is mounted again.
            if all(place[0] == device for place in read.shared)
        }
        body = json.dumps(rows, separators=(",", ":")).encode()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        drafts.replace_whole(file, _head(cache_dir, body) + b"\n" + body)
    except OSError as error:
        log.debug("What was read of the cache is not kept in %s: %s", file, error)


def _head(cache_dir: Path, body: bytes) -> bytes:
    """Whose file it is, and that it is whole. Raises OSError."""
    return json.dumps([FORM, str(cache_dir), cache_dir.stat().st_dev, len(body), zlib.crc32(body)]).encode()


def _row(root: int, read: ReadModel) -> list[Any]:
    """``root``: how long the path of its folder is, which is where the traces lie."""
    model = read.model
    return [
        [getattr(model, name) for name in _MODEL],
        [[[getattr(one, name) for name in _REVISION], one.refs, one.missing] for one in model.revisions],
        read.own_bytes,
        [[*place, size] for place, size in read.shared.items()],
        [[path[root:] for path, *_ in read.traces], *list(zip(*read.traces, strict=True))[1:]],
    ]


def _model(root: str, row: list[Any]) -> ReadModel:
    model, revisions, own, shared, (paths, *rest) = row
    return ReadModel(
        LocalModel(
            path=root,
            revisions=tuple(
                LocalRevision(refs=tuple(refs), missing=tuple(missing), **dict(zip(_REVISION, told, strict=True)))
                for told, refs, missing in revisions
            ),
            **dict(zip(_MODEL, model, strict=True)),
        ),
        own,
        {(device, inode): size for device, inode, size in shared},
        tuple(zip([root + path for path in paths], *rest, strict=True)),
        is_moving=False,
    )
