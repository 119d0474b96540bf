"""A cache to fill and to look at: what the tests of the cache share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes.hub_server import HubServer
from mlx_manager.domain.library import LocalModel
from mlx_manager.domain.plan import Plan, PlanFile, make_plan
from mlx_manager.services.hf_cache import HfCache

REPO = "mlx-community/Tiny-4bit"
FILES: dict[str, Any] = {
    "README.md": "# Tiny",
    "config.json": '{"model_type": "tiny"}',
    "model.safetensors": b"weights" * 1000,
    "sub dir/ünïcode #1.txt": "text",
    "twin/config.json": '{"model_type": "tiny"}',
    "empty.txt": b"",
}
SHARDS: dict[str, Any] = {
    "config.json": "{}",
    "README.md": "# Shards",
    "model-00001-of-00002.safetensors": b"1" * 5000,
    "model-00002-of-00002.safetensors": b"2" * 7000,
    "model.safetensors.index.json": '{"weight_map": {"a": "model-00001-of-00002.safetensors", '
    '"b": "model-00002-of-00002.safetensors"}}',
}


def plan_of(hub: HubServer, repo: str = REPO, revision: str = "main", **patterns: tuple[str, ...]) -> Plan:
    """The plan that the Hub client makes of a model, without asking."""
    commit = hub.repo(repo).commit(revision)
    tree = [
        PlanFile(path, file.content.size, file.oid, file.content.sha256 if file.lfs else None)
        for path, file in commit.files.items()
    ]
    return make_plan(repo, revision, commit.sha, tree, **patterns)


def fetch(hub: HubServer, cache: HfCache, plan: Plan) -> Path:
    """All that the transfer would do, and the link: the snapshot."""
    for place in cache.prepare(plan):
        content = hub.repo(plan.model_id).commits[plan.commit].files[place.file.path].content
        place.part.write_bytes(content.read(0, content.size))
        place.part.replace(place.blob)
    return cache.link(plan)


def environment(hub: HubServer, cache_dir: Path, **more: str) -> Mapping[str, str]:
    """That of a Hugging Face tool which knows nothing but this hub and this cache."""
    home = cache_dir.parent / "home"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_CACHE": str(cache_dir),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **more,
    }


def run(command: list[str], env: Mapping[str, str], status: int = 0) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def hf(hub: HubServer, cache_dir: Path, *arguments: str, **more: str) -> str:
    """The real `hf`; what it prints."""
    return run([str(Path(sys.executable).with_name("hf")), *arguments], environment(hub, cache_dir, **more))


def scanned(hub: HubServer, cache_dir: Path) -> dict[str, Any]:
    """What `hf cache ls` shows, before it rounds the sizes: by the name it gives a model, size and revisions."""
    script = """
        import json
        from huggingface_hub import scan_cache_dir
        scan = scan_cache_dir()
        assert not scan.warnings, scan.warnings
        print(json.dumps({"total": scan.size_on_disk, "models": {repo.cache_id: {
            "size": repo.size_on_disk,
            "revisions": sorted([r.commit_hash, r.size_on_disk, r.nb_files, sorted(r.refs)] for r in repo.revisions),
            "used_at": repo.last_accessed,
        } for repo in scan.repos}}))
    """
    told = json.loads(run([sys.executable, "-c", textwrap.dedent(script)], environment(hub, cache_dir)))
    listed = json.loads(hf(hub, cache_dir, "cache", "ls", "--format", "json"))
    assert {entry["id"] for entry in listed} == set(told["models"])
    return dict(told)


@contextmanager
def nobody_special() -> Iterator[None]:
    """Root is let in anywhere; while this lasts, this process is not root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A new folder that everybody may look and write into, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="cache-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def everything(folder: Path) -> list[str]:
    """All paths below a folder, folders too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def only(cache: HfCache) -> LocalModel:
    [model] = cache.local()
    return model


def root_of(cache: HfCache, repo: str = "org/Shards") -> Path:
    return cache.cache_dir / ("models--" + repo.replace("/", "--"))
