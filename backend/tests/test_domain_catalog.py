"""Ids, revisions and patterns as the Hub allows them; sizes from names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.domain.catalog import (
    MAX_ID,
    ModelRequest,
    check_model_id,
    check_request,
    check_revision,
    estimate_size,
)
from mlx_manager.errors import InvalidModelId, InvalidPatterns, InvalidRevision

GB = 1e9


@pytest.mark.parametrize(
    "model_id", ["mlx-community/Qwen3-0.6B-4bit", "o/m", "A_1/b.c", "HuggingFaceTB/SmolLM2-135M", "_a/b_"]
)
def test_ids_the_hub_knows_are_taken(model_id: str) -> None:
    assert check_model_id(model_id) == model_id


@pytest.mark.parametrize(
    "model_id",
    [
        "",
        "   ",
        "nomodel",
        "a/b/c",
        "/b",
        "a/",
        "a b/c",
        "../b",
        "a/..",
        "a/b--c",
        "a/-b",
        "a/b-",
        "a/.b",
        "a/b.git",
        "a/b\n",
        "a/b\0",
        "ä/b",
        "a\\b/c",
        "https://huggingface.co/a/b",
        "a/" + "b" * MAX_ID,
    ],
)
def test_other_ids_are_refused_with_the_next_step(model_id: str) -> None:
    with pytest.raises(InvalidModelId) as refused:
        check_model_id(model_id)
    assert "ORG/MODEL" in refused.value.advice


@given(st.text())
def test_what_passes_as_an_id_is_one_folder_below_another(text: str) -> None:
    try:
        model_id = check_model_id(text)
    except InvalidModelId:
        return
    org, name = model_id.split("/")
    assert model_id.isascii()
    assert model_id.isprintable()
    assert {org, name}.isdisjoint({"", ".", ".."})
    # In the cache the slash becomes two dashes, and that must lead back to the same id.
    assert f"models--{org}--{name}".split("--") == ["models", org, name]


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/12", "a" * 40, "feature/x_y-z"])
def test_revisions(revision: str) -> None:
    assert check_revision(revision) == revision


@pytest.mark.parametrize("revision", ["", "-x", "a b", "a..b", "a//b", "a/", "x.lock", "a\n", "a" * 251, "/a", "a?b"])
def test_other_revisions_are_refused(revision: str) -> None:
    with pytest.raises(InvalidRevision):
        check_revision(revision)


def test_the_same_wish_in_other_words_is_the_same_request() -> None:
    one = check_request("a/b", allow_patterns=["*.json", "*.safetensors", "*.json"], ignore_patterns=[])
    assert one == check_request("a/b", "main", ["*.safetensors", "*.json"])
    assert one == ModelRequest("a/b", "main", ("*.json", "*.safetensors"), None)


@pytest.mark.parametrize("patterns", [[""], ["  "], ["x" * 501], ["a\0b"], ["*"] * 101, ["a\ud800"], ["\udfff*"]])
def test_patterns_that_are_none_are_refused(patterns: list[str]) -> None:
    with pytest.raises(InvalidPatterns):
        check_request("a/b", allow_patterns=patterns)
    with pytest.raises(InvalidPatterns):
        check_request("a/b", ignore_patterns=patterns)


@pytest.mark.parametrize(
    ("name", "true_size"),
    [
        # Sizes of the weights as the Hub shows them.
        ("Qwen3-0.6B-4bit", 0.34 * GB),
        ("SmolLM2-135M-Instruct-8bit", 0.14 * GB),
        ("Mixtral-8x7B-Instruct-v0.1-4bit", 26 * GB),
        ("Qwen3-30B-A3B-4bit", 17 * GB),
        ("Qwen3-30B-A3B-Instruct-2507-4bit", 17 * GB),
        ("gpt-oss-20b-MXFP4-Q8", 12 * GB),
        ("Llama-3.2-1B-Instruct-bf16", 2.5 * GB),
        ("Qwen3-8B-3bit", 3.6 * GB),
        ("Qwen3-8B-5bit", 5.6 * GB),
        ("Qwen3-8B-6bit", 6.7 * GB),
        ("Qwen3-4B-4bit-DWQ", 2.3 * GB),
        ("Qwen3-4B-DWQ", 2.3 * GB),
        ("Qwen3-235B-A22B-4bit", 132 * GB),
        ("Mixtral-8x22B-4bit", 79 * GB),
        ("Qwen2.5-7B-Instruct-1M-4bit", 4.3 * GB),
        ("gemma-3-27b-it-qat-4bit", 16.8 * GB),
        ("Qwen3-4B", 8 * GB),
    ],
)
def test_the_size_that_a_name_promises(name: str, true_size: float) -> None:
    estimate = estimate_size(f"mlx-community/{name}")
    assert estimate is not None
    assert estimate == pytest.approx(true_size, rel=0.25)


@pytest.mark.parametrize(
    "name",
    [
        "whisper-large-v3-mlx",
        "DeepSeek-V3-0324-4bit",
        "phi-2",
        "Kimi-K2-Instruct-4bit",
        "bert",
        "4bit",
        "x8b9",
        "Llama-4-Scout-17B-16E-Instruct-4bit",
    ],
)
def test_no_hint_is_no_guess(name: str) -> None:
    assert estimate_size(f"mlx-community/{name}") is None


def test_the_organisation_is_no_hint() -> None:
    assert estimate_size("team-7B/model-4bit") is None


@given(st.text())
def test_any_name_has_a_size_or_none(name: str) -> None:
    size = estimate_size(name)
    assert size is None or size >= 0


@given(st.integers(1, 900), st.sampled_from([2, 3, 4, 5, 6, 8]))
def test_more_bits_are_more_bytes(billions: int, bits: int) -> None:
    few, many = estimate_size(f"o/m-{billions}B-{bits}bit"), estimate_size(f"o/m-{billions}B-bf16")
    assert few is not None
    assert many is not None
    assert few < many
