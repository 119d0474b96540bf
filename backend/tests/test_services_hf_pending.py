"""A snapshot that a killed process left half linked: a cancel removes what was added, and nothing else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub_server import HubServer
from hub_cache import FILES, REPO, everything, fetch, hf, plan_of, root_of
from mlx_manager.domain.plan import Plan
from mlx_manager.services.hf_cache import HfCache

SUBSET = ("README.md", "empty.txt")
LINKED = ["README.md", "config.json", "empty.txt"]
"""Of the whole model when its third link is made."""
# Killed in the act: the interpreter tells of each link before it makes it.
LINKER = """
    import json, os, signal, sys
    from pathlib import Path
    from mlx_manager.domain.plan import Plan
    from mlx_manager.services.hf_cache import HfCache
    plan, cache, left = Plan.from_json(json.loads(sys.argv[1])), HfCache(Path(sys.argv[2])), int(sys.argv[3])
    def die(event, arguments):
        global left
        if event == "os.symlink" and "blobs" in str(arguments[0]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(die)
    cache.link(plan)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, FILES)
        hub.commit(REPO, {"config.json": "{}", "new.json": "[]"}, branch="refs/pr/1")
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> HfCache:
    return HfCache(tmp_path / "cache")


def killed_while_linking(hub: HubServer, cache: HfCache, plan: Plan, after: int = 3) -> None:
    """All bytes are here, and so many links: of this run or from before."""
    for place in cache.prepare(plan):
        content = hub.repo(plan.model_id).commits[plan.commit].files[place.file.path].content
        place.blob.write_bytes(content.read(0, content.size))
    command = [sys.executable, "-c", textwrap.dedent(LINKER)]
    done = subprocess.run(
        [*command, json.dumps(plan.to_json()), str(cache.cache_dir), str(after)], check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL


def linked(cache: HfCache, plan: Plan) -> list[str]:
    snapshot = root_of(cache, REPO) / "snapshots" / plan.commit
    return [name for name in everything(snapshot) if not (snapshot / name).is_dir()]


def test_nothing_is_left_of_a_download_that_was_killed_while_linking_and_cancelled(
    hub: HubServer, cache: HfCache
) -> None:
    plan = plan_of(hub)
    killed_while_linking(hub, cache, plan)
    assert linked(cache, plan) == LINKED
    assert cache.discard(plan) == plan.total_bytes
    assert not root_of(cache, REPO).exists()


def test_what_was_there_before_stays(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    newer = plan_of(hub, revision="refs/pr/1")
    fetch(hub, cache, newer)
    fetch(hub, cache, plan_of(hub, allow_patterns=SUBSET))
    # The branch has moved on since, so that nothing names the commit.
    (root_of(cache, REPO) / "refs" / "main").unlink()
    before = everything(root_of(cache, REPO))
    killed_while_linking(hub, cache, plan, after=4)
    assert linked(cache, plan) == sorted({*SUBSET, "config.json", "model.safetensors"})
    cache.discard(plan)
    assert everything(root_of(cache, REPO)) == before


def test_of_a_commit_that_was_named_before_nothing_goes_that_another_program_has_finished(
    hub: HubServer, cache: HfCache
) -> None:
    """It leaves the ref as it is, so nothing tells that it was there."""
    plan = plan_of(hub)
    fetch(hub, cache, plan_of(hub, allow_patterns=SUBSET))
    killed_while_linking(hub, cache, plan, after=1)
    hf(hub, cache.cache_dir, "download", REPO, "--include", "*.safetensors", "--include", "config.json", "--quiet")
    before = linked(cache, plan)
    assert "model.safetensors" in before
    cache.discard(plan)
    assert linked(cache, plan) == before


def test_nor_after_a_download_of_another_choice_has_ended_well(hub: HubServer, cache: HfCache) -> None:
    """It strikes out of the other's note what is its own, and so makes that newer than the ref."""
    plan = plan_of(hub)
    killed_while_linking(hub, cache, plan, after=1)
    hf(hub, cache.cache_dir, "download", REPO, "--include", "*.safetensors", "--include", "config.json", "--quiet")
    fetch(hub, cache, plan_of(hub, allow_patterns=SUBSET))
    before = linked(cache, plan)
    assert "model.safetensors" in before
    cache.discard(plan)
    assert linked(cache, plan) == before


def test_what_another_download_has_finished_since_stays(hub: HubServer, cache: HfCache) -> None:
    plan, subset = plan_of(hub), plan_of(hub, allow_patterns=SUBSET)
    killed_while_linking(hub, cache, plan)
    cache.prepare(subset)
    snapshot = cache.link(subset)
    # The branch has moved on since it was asked for, so that nothing names the commit.
    (root_of(cache, REPO) / "refs" / "main").unlink()
    cache.discard(plan)
    assert linked(cache, plan) == sorted(SUBSET)
    assert all((snapshot / name).is_file() for name in SUBSET)


@pytest.mark.parametrize("chosen", [("*",), SUBSET])
def test_what_another_program_has_taken_for_its_own_stays(
    hub: HubServer, cache: HfCache, chosen: tuple[str, ...]
) -> None:
    plan = plan_of(hub)
    killed_while_linking(hub, cache, plan)
    include = [word for pattern in chosen for word in ("--include", pattern)]
    hf(hub, cache.cache_dir, "download", REPO, *include, "--quiet")
    if chosen == ("*",):
        # The branch has moved on since; what is whole stays without a name too.
        (root_of(cache, REPO) / "refs" / "main").unlink()
    before = linked(cache, plan)
    cache.discard(plan)
    assert linked(cache, plan) == before
    assert set(SUBSET) <= set(before)


def test_what_is_finished_at_last_stays_and_no_note_of_it(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    killed_while_linking(hub, cache, plan, after=1)
    killed_while_linking(hub, cache, plan, after=2)
    assert linked(cache, plan) == LINKED[:2]
    cache.link(plan)
    cache.discard(plan)
    assert len(linked(cache, plan)) == len(FILES)
    assert {path.name for path in root_of(cache, REPO).iterdir()} == {"blobs", "refs", "snapshots", "trees"}


def test_two_kills_are_undone_together(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    killed_while_linking(hub, cache, plan, after=1)
    killed_while_linking(hub, cache, plan, after=2)
    cache.discard(plan)
    assert not root_of(cache, REPO).exists()


def test_a_link_in_place_of_a_folder_is_not_followed(hub: HubServer, cache: HfCache, tmp_path: Path) -> None:
    plan = plan_of(hub)
    killed_while_linking(hub, cache, plan, after=5)
    folder = root_of(cache, REPO) / "snapshots" / plan.commit / "sub dir"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    before = everything(tmp_path / "elsewhere")
    cache.discard(plan)
    assert everything(tmp_path / "elsewhere") == before != []
