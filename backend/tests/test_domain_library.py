"""When the files that are here make a model."""

from __future__ import annotations

import pytest

from mlx_manager.domain.library import LocalModel, LocalRevision, is_complete

WEIGHTS = {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("present", "missing", "listed", "interrupted", "complete"),
    [
        (WEIGHTS, set(), True, False, True),
        (WEIGHTS, {"README.md", ".gitattributes", "images/logo.png"}, True, False, True),
        (WEIGHTS, {"tokenizer.json"}, True, False, False),
        (WEIGHTS, {"model-00002-of-00002.safetensors"}, True, False, False),
        (WEIGHTS, {"README.md"}, True, True, False),
        ({"tokenizer.json"}, set(), True, False, True),
        (set(), set(), True, False, False),
        (WEIGHTS, set(), False, False, True),
        (WEIGHTS, {"README.md"}, False, False, False),
        (WEIGHTS, set(), False, True, False),
        ({"config.json"}, set(), False, False, False),
    ],
)
def test_complete(present: set[str], missing: set[str], listed: bool, interrupted: bool, complete: bool) -> None:
    assert is_complete(present, missing, listed=listed, interrupted=interrupted) is complete


def test_the_commit_to_speak_of() -> None:
    def model(*complete: bool) -> LocalModel:
        revisions = tuple(LocalRevision(f"{n}", (), 1, 1, 1, whole) for n, whole in enumerate(complete))
        return LocalModel("org/name", "/cache", 1, 0, 0.0, revisions)

    assert (model().commit, model().complete) == (None, False)
    assert (model(False, True, True).commit, model(False, True, True).complete) == ("1", True)
    assert (model(False, False).commit, model(False, False).complete) == ("0", False)
