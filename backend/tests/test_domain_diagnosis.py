"""What facts mean for the person: each kind of finding, in words, with its next step."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_manager.domain.diagnosis import Finding, Level, conclusion
from mlx_manager.domain.hub_checks import (
    Bytes,
    Way,
    XetFacts,
    judge_bytes,
    judge_clock,
    judge_token,
    judge_way,
    judge_xet,
)
from mlx_manager.domain.library import Leftover
from mlx_manager.domain.machine_checks import (
    CacheFacts,
    DatabaseFacts,
    DiskFacts,
    FolderFacts,
    ServerFacts,
    judge_cache,
    judge_data_folder,
    judge_database,
    judge_disk,
    judge_leftovers,
    judge_server,
)

HUB = "https://huggingface.co"
GB = 10**9
URL = "http://127.0.0.1:10242"


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ("well well", "All is well."),
        ("well note", "Nothing is wrong, one thing is worth knowing."),
        ("well skipped skipped", "Nothing is wrong, 2 things are not looked at."),
        ("wrong note note skipped", "One thing is wrong, 2 things are worth knowing, one thing is not looked at."),
        ("wrong wrong", "2 things are wrong."),
    ],
)
def test_the_last_line(levels: str, said: str) -> None:
    assert conclusion([Level(word) for word in levels.split()]) == said


@pytest.mark.parametrize(
    ("server", "level", "part", "fix"),
    [
        (ServerFacts(), Level.WELL, "not running", None),
        (ServerFacts(URL, 7, "1.0", alive=True, answers=True), Level.WELL, f"runs at {URL}, version 1.0", None),
        (
            ServerFacts(URL, 7, "1.0", alive=True, answers=True, problem="The disk is full.", advice="Free some room."),
            Level.WRONG,
            "says: The disk is full.",
            None,
        ),
        (ServerFacts(URL, 7, "0.9", alive=True, answers=True), Level.NOTE, "is version 0.9", "kill 7"),
        (ServerFacts(URL, 7, "1.0", alive=True), Level.WRONG, "process 7 holds the data folder", "kill 7"),
        (ServerFacts(URL, 7, "1.0"), Level.WELL, "ended without notice", None),
    ],
)
def test_the_server(server: ServerFacts, level: Level, part: str, fix: str | None) -> None:
    found = judge_server(server, "1.0")
    assert (found.level, found.fix) == (level, fix)
    assert part in found.said


HERE = FolderFacts("/the cache", True)


@pytest.mark.parametrize(
    ("cache", "level", "part"),
    [
        (CacheFacts(HERE, True, True), Level.WELL, "symbolic links and locks work"),
        (CacheFacts(FolderFacts("/the cache", False)), Level.WELL, "made at the first download"),
        (CacheFacts(HERE, False, True), Level.NOTE, "without symbolic links"),
        (CacheFacts(HERE, True, False), Level.WRONG, "without working file locks"),
        (CacheFacts(HERE, True, True, ("a", "b", "c", "d")), Level.NOTE, "several disks: a, b, c and 1 more"),
    ],
)
def test_the_cache(cache: CacheFacts, level: Level, part: str) -> None:
    found = judge_cache(cache)
    assert found.level is level
    assert part in found.said


def test_a_folder_that_cannot_be_written_to_is_given_back_by_a_command_that_survives_its_name() -> None:
    found = judge_data_folder(FolderFacts("/with a space's", True, "Permission denied"))
    assert found.level is Level.WRONG
    assert found.fix == """sudo chown -R "$(id -un)" '/with a space'"'"'s'"""
    assert judge_cache(CacheFacts(FolderFacts("/x", True, "Read-only file system"))).level is Level.WRONG


def test_a_full_disk_is_no_matter_of_rights() -> None:
    full = FolderFacts("/x", True, "No space left on device", full=True)
    for found in (judge_data_folder(full), judge_cache(CacheFacts(full))):
        assert (found.level, found.fix) == (Level.WRONG, None)
        assert (found.advice or "").startswith("Free some room on its disk")


@pytest.mark.parametrize(
    ("disk", "level", "part"),
    [
        (DiskFacts(100 * GB, 500 * GB, 10**6), Level.WELL, "100.0 GB free of 500.0 GB"),
        (DiskFacts(100 * GB, 500 * GB, None), Level.WELL, "100.0 GB free"),
        (DiskFacts(100 * GB, 500 * GB, 12), Level.WRONG, "no more than 12 files more (inodes)"),
        (DiskFacts(10**6, 500 * GB, None), Level.WRONG, "full: 1.0 MB free"),
        (DiskFacts(2 * GB, 500 * GB, None), Level.NOTE, "little for models"),
        (
            DiskFacts(2 * GB, 9 * GB, None, 3 * GB, 1),
            Level.WRONG,
            "the unfinished download needs 3.0 GB more, 1.1",
        ),
        (DiskFacts(2 * GB, 9 * GB, None, 3 * GB, 2), Level.WRONG, "the 2 unfinished downloads need 3.0 GB more"),
        (DiskFacts(9 * GB, 9 * GB, None, 3 * GB, 2), Level.WELL, "9.0 GB free"),
    ],
)
def test_the_disk(disk: DiskFacts, level: Level, part: str) -> None:
    found = judge_disk(disk)
    assert found.level is level
    assert part in found.said


@pytest.mark.parametrize(
    ("database", "level", "part"),
    [
        (DatabaseFacts("/d", False), Level.WELL, "none yet"),
        (DatabaseFacts("/d", True, None, "0001", "0001", 1), Level.WELL, "whole, 1 download"),
        (DatabaseFacts("/d", True, None, "0001", "0001", 9, 2, 1), Level.WELL, "9 downloads, 2 unfinished, 1 failed"),
        (DatabaseFacts("/d", True, None, "0001", "0002"), Level.WELL, "brings it up to date"),
        (DatabaseFacts("/d", True, None, "0003", "0002"), Level.WRONG, "written by a newer version"),
        (DatabaseFacts("/d", True, "it is damaged: page 3"), Level.WRONG, "it is damaged: page 3"),
    ],
)
def test_the_database(database: DatabaseFacts, level: Level, part: str) -> None:
    found = judge_database(database)
    assert found.level is level
    assert part in found.said


def test_leftovers_name_the_models_and_both_ways_out() -> None:
    assert judge_leftovers([]).level is Level.WELL
    found = judge_leftovers([Leftover("/c/a.part", 3 * GB, "org/one"), Leftover("/c/it's.tmp", 10)])
    assert (found.level, found.said) == (
        Level.NOTE,
        "2 files that no download waits for, 3.0 GB: unfinished files of org/one",
    )
    assert found.advice == "`mlx-manager pull org/one` would go on with them. This removes them instead."
    assert found.fix == """mlx-manager rm org/one --leftovers && rm -r -- '/c/it'"'"'s.tmp'"""


def test_how_the_hub_is_asked() -> None:
    assert judge_way(Way(HUB)) == Finding(Level.WELL, HUB)
    found = judge_way(Way("https://mirror.example", proxy="http://proxy:3128", mirrors=["https://a", "https://b"]))
    assert found.said == (
        "https://mirror.example (HF_ENDPOINT) through the proxy http://proxy:3128; its files also from https://a, https://b"
    )
    offline = judge_way(Way(HUB, offline=True))
    assert (offline.level, offline.fix) == (Level.NOTE, "unset HF_HUB_OFFLINE")


@pytest.mark.parametrize(
    ("ahead_s", "level", "said"),
    [
        (-2.0, Level.WELL, "agrees with the Hub's"),
        (95.0, Level.NOTE, "1 min 35 s ahead of the Hub's"),
        (-7200.0, Level.WRONG, "2 h 00 min behind the Hub's"),
    ],
)
def test_the_clock(ahead_s: float, level: Level, said: str) -> None:
    found = judge_clock(ahead_s, "Darwin")
    assert (found.level, found.said) == (level, said)
    assert (found.fix is None) == (level is Level.WELL)


def whoami(**token: Any) -> dict[str, Any]:
    return {"name": "alice", "orgs": [{"name": "team"}], "auth": {"accessToken": token}}


SCOPED = [{"entity": {"name": "team"}, "permissions": ["repo.content.read"]}, {"entity": {}, "permissions": ["x"]}]


@pytest.mark.parametrize(
    ("status", "said_by_hub", "level", "part"),
    [
        (
            200,
            whoami(role="write"),
            Level.WELL,
            "a write token of alice: reads public models, its own",
        ),
        (
            200,
            whoami(role="fineGrained", fineGrained={"scoped": SCOPED}),
            Level.NOTE,
            "ones of team, but no gated",
        ),
        (200, whoami(role="fineGrained", fineGrained={"canReadGatedRepos": True}), Level.WELL, "and gated ones"),
        (200, {"name": None, "auth": "?", "orgs": None}, Level.WELL, "a token of somebody"),
        (200, ["odd"], Level.NOTE, "did not say whose it is"),
        (401, None, Level.WRONG, "does not accept it"),
        (500, None, Level.NOTE, "did not say whose it is (500)"),
    ],
)
def test_the_token(status: int, said_by_hub: object, level: Level, part: str) -> None:
    found = judge_token(status, said_by_hub, HUB)
    assert found.level is level
    assert part in found.said


def test_the_bytes_of_a_file() -> None:
    assert judge_bytes(None).level is Level.SKIPPED
    assert judge_bytes(Bytes("cdn", 206, 1)).level is Level.WELL
    assert judge_bytes(Bytes("cdn", 206, 0)).level is Level.WRONG
    assert judge_bytes(Bytes("cdn", 200, 1)).level is Level.NOTE
    assert judge_bytes(Bytes("cdn", 403, 0)).said == "cdn refuses a public file (403)"


def test_xet() -> None:
    assert judge_xet(XetFacts(off=True)).level is Level.SKIPPED
    assert judge_xet(XetFacts(offered=False)).level is Level.SKIPPED
    assert judge_xet(XetFacts(host="cas")).said == "cas answers"
    assert judge_xet(XetFacts(problem="gone")).level is Level.NOTE
    assert judge_xet(XetFacts(first=True, problem="gone")).level is Level.WRONG
