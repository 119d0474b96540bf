"""Which files, under which names, and that no name of a hub's leaves its folder."""

from __future__ import annotations

import json
import os.path
from hashlib import sha1

import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.domain.plan import (
    Digest,
    Plan,
    PlanFile,
    case_collisions,
    check_path,
    is_wanted,
    make_plan,
)
from mlx_manager.errors import EmptyRepository, NoFileMatches, UnsafeFileName


def small(path: str, size: int = 1, blob_id: str = "") -> PlanFile:
    return PlanFile(path, size, blob_id or sha1(path.encode(errors="surrogatepass")).hexdigest())


def big(path: str, size: int, sha256: str) -> PlanFile:
    return PlanFile(path, size, "b" * 40, sha256, "x" * 64)


TREE = [
    small("config.json", 700),
    big("model-00001-of-00002.safetensors", 5_000, "1" * 64),
    big("model-00002-of-00002.safetensors", 4_000, "2" * 64),
    big("original/consolidated.safetensors", 9_000, "3" * 64),
    small("README.md", 30),
]


def test_a_plan_has_all_files_in_order() -> None:
    plan = make_plan("a/b", "main", "c" * 40, TREE)
    assert [file.path for file in plan.files] == sorted(file.path for file in TREE)
    assert plan.tree == plan.files
    assert plan.total_bytes == 18_730


def test_patterns_choose_the_files_and_the_tree_keeps_all() -> None:
    plan = make_plan("a/b", "main", "c" * 40, TREE, ("*.safetensors", "config.json"), ("original/",))
    assert [file.path for file in plan.files] == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert len(plan.tree) == len(TREE)
    assert plan.total_bytes == 9_700


def test_the_same_content_twice_is_one_blob() -> None:
    plan = make_plan("a/b", "main", "c" * 40, [big("a", 5, "1" * 64), big("b", 5, "1" * 64), small("c", 2)])
    assert [(blob.path, blob.size) for blob in plan.blobs] == [("a", 5), ("c", 2)]
    assert plan.total_bytes == 7


def test_an_empty_repository() -> None:
    with pytest.raises(EmptyRepository):
        make_plan("a/b", "main", "c" * 40, [])


def test_patterns_that_match_nothing() -> None:
    with pytest.raises(NoFileMatches, match="None of the 5 files"):
        make_plan("a/b", "main", "c" * 40, TREE, ("*.gguf",))
    with pytest.raises(NoFileMatches):
        make_plan("a/b", "main", "c" * 40, TREE, None, ("*",))


def test_the_name_and_the_hash_of_a_blob() -> None:
    assert big("a", 1, "1" * 64).etag == "1" * 64
    assert big("a", 1, "1" * 64).digest == Digest("sha256", "1" * 64)
    assert PlanFile("a", 1, "b" * 40).etag == "b" * 40
    assert PlanFile("a", 1, "b" * 40).digest == Digest("git-sha1", "b" * 40)


def test_a_plan_comes_back_from_json_as_it_was() -> None:
    plan = make_plan("a/b", "main", "c" * 40, TREE, ("*.json",))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "..",
        ".",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "C:\\x",
        "a\nb",
        "a\0b",
        "a\x7fb",
        "a\ud800b",
        "x" * 256,
        "/".join(["d" * 100] * 11),
    ],
)
def test_hostile_names_are_refused(path: str) -> None:
    with pytest.raises(UnsafeFileName):
        check_path(path)
    with pytest.raises(UnsafeFileName):
        make_plan("a/b", "main", "c" * 40, [small("ok"), PlanFile(path, 1, "b" * 40)])


@pytest.mark.parametrize("path", ["a", "a/b/c.txt", ".gitattributes", "ünïcode/模型.json", "a b", "...", "x" * 255])
def test_plain_names_are_taken(path: str) -> None:
    check_path(path)


@given(st.text(st.characters(codec=None), max_size=60) | st.lists(st.sampled_from(["..", ".", "a", ""])).map("/".join))
def test_a_name_that_passes_stays_in_its_folder(path: str) -> None:
    try:
        check_path(path)
    except UnsafeFileName:
        return
    root = "/cache/snapshots/commit"
    assert os.path.normpath(f"{root}/{path}") == f"{root}/{path}"
    path.encode()


def test_one_name_twice_or_a_file_that_is_a_folder() -> None:
    with pytest.raises(UnsafeFileName, match="twice"):
        make_plan("a/b", "main", "c" * 40, [small("a"), small("a", blob_id="d" * 40)])
    with pytest.raises(UnsafeFileName, match="folder"):
        make_plan("a/b", "main", "c" * 40, [small("a"), small("a/b")])


def test_names_that_are_one_on_a_mac() -> None:
    files = [small("Model.bin"), small("model.bin"), small("e\u0301.txt"), small("\u00e9.txt"), small("other")]
    assert sorted(case_collisions(files)) == sorted(["model.bin", "\u00e9.txt"])


_patterns = st.lists(st.text("ab*?[]/.!", min_size=1, max_size=6), max_size=3)


@given(st.text("ab/.", min_size=1, max_size=8), st.none() | _patterns, st.none() | _patterns)
def test_patterns_mean_what_they_mean_to_hf(path: str, allow: list[str] | None, ignore: list[str] | None) -> None:
    theirs = list(filter_repo_objects([path], allow_patterns=allow, ignore_patterns=ignore))
    ours = is_wanted(path, None if allow is None else tuple(allow), None if ignore is None else tuple(ignore))
    assert ours == bool(theirs)
