"""Whatever a hub or a stranger names, nothing lands outside of the model's own folder."""

from __future__ import annotations

import os.path
import tempfile
from hashlib import sha1
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlx_manager.domain.catalog import check_model_id, check_revision
from mlx_manager.domain.plan import PlanFile, make_plan
from mlx_manager.errors import EmptyRepository, InvalidModelId, InvalidRevision, UnsafeFileName
from mlx_manager.services.hf_cache.layout import RepoFolders

CACHE = Path("/cache")
_steps = st.sampled_from(
    ["..", ".", "", "a", "b", "A", "~", "-", "C:", "\\", "\0", "\u2025", "\uff0e\uff0e", "a\n", " ", "..."]
)
_hostile = st.lists(_steps, min_size=1, max_size=5).map("/".join) | st.text(max_size=12)


@given(_hostile)
@example("models--x/--y")
@example("../x")
def test_a_models_folder_is_a_folder_of_the_cache(model_id: str) -> None:
    try:
        check_model_id(model_id)
    except InvalidModelId:
        return
    folders = RepoFolders.of(CACHE, model_id)
    assert Path(os.path.normpath(folders.root)).parent == CACHE
    assert Path(os.path.normpath(folders.locks)).parent == CACHE / ".locks"


@given(_hostile)
def test_a_ref_stays_among_the_refs(revision: str) -> None:
    try:
        check_revision(revision)
    except InvalidRevision:
        return
    refs = RepoFolders.of(CACHE, "a/b").refs
    where = Path(os.path.normpath(refs / revision))
    assert refs in where.parents


@given(st.lists(_hostile, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_files_of_a_listing_that_passes_lie_below_their_folder_and_nowhere_else(paths: list[str]) -> None:
    """Really made, as the disk of this machine takes the names."""
    tree = [PlanFile(path, 1, sha1(str(number).encode()).hexdigest()) for number, path in enumerate(paths)]
    try:
        plan = make_plan("a/b", "main", "c" * 40, tree)
    except (UnsafeFileName, EmptyRepository):
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "cache", "snapshots", "c" * 40)
        for file in plan.files:
            place = root / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(file.path)
        made = {path for path in Path(folder).rglob("*") if path.is_file()}
        assert made == {root / file.path for file in plan.files}
        assert len(made) == len(paths)
