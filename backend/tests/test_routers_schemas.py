"""What the OpenAPI document says of a request is what is checked, and every answer can be written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.domain.catalog import check_model_id, check_revision
from mlx_manager.errors import InvalidModelId, InvalidRevision
from mlx_manager.routers.jsons import encode
from mlx_manager.routers.schemas import MODEL_ID, REVISION

_near = st.text("aZ0._-/+ \n\u00e9", max_size=12)
_ids = st.builds("{}/{}".format, _near, _near) | st.sampled_from(["a.git/b", "a/b.git", "a/b.gitx", "a/b\n"]) | _near
_revisions = st.sampled_from(["main.lock", "a.lock/b", "refs/pr/1", "x" * 250, "x" * 251]) | _near


def _agrees(schema: dict[str, Any], check: Callable[[str], str], refusal: type[Exception], text: str) -> None:
    # JavaScript's $ is the very end, Python's is before a last line's end too.
    says = re.search(schema["pattern"].replace("$", r"\Z"), text) is not None and len(text) <= schema["maxLength"]
    if says:
        check(text)
    else:
        with pytest.raises(refusal):
            check(text)


@given(_ids)
def test_the_schema_of_a_model_id_is_its_check(text: str) -> None:
    _agrees(MODEL_ID, check_model_id, InvalidModelId, text)


@given(_revisions)
def test_the_schema_of_a_revision_is_its_check(text: str) -> None:
    _agrees(REVISION, check_revision, InvalidRevision, text)


@given(st.recursive(st.text(st.characters(codec=None)) | st.integers() | st.none(), st.lists, max_leaves=5))
def test_whatever_text_there_is_an_answer_can_be_written(content: Any) -> None:
    """Half of a surrogate pair in one row took the whole list of downloads away."""
    written = json.loads(encode({"error": content}))
    assert _whole(written["error"]) == _whole(content)


def _whole(content: Any) -> Any:
    if isinstance(content, list):
        return [_whole(one) for one in content]
    return re.sub("[\ud800-\udfff]", "?", content) if isinstance(content, str) else content
