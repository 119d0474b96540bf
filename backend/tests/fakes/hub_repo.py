"""Repos as the Hub keeps them: commits that stay, branches that move, files by git's hash or by LFS's."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fakes.hub_blobs import Content
from fakes.hub_message import HubError

LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", ".npz", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".model")
LFS_THRESHOLD = 10 << 20


@dataclass(frozen=True)
class HubFile:
    """One file of one commit. `oid` is its git hash: of the content, or of the LFS pointer that stands for it. `xet`:
    stored with Xet, which only LFS files are."""

    path: str
    content: Content
    lfs: bool
    oid: str
    pointer_size: int
    xet: bool = False

    @property
    def xet_hash(self) -> str | None:
        """What Xet knows the content by, where it does."""
        return hashlib.sha256(f"xet {self.content.sha256}".encode()).hexdigest() if self.xet else None

    @property
    def etag(self) -> str:
        """The hash that a download is checked against: SHA-256 for LFS, git's SHA-1 for the others."""
        return self.content.sha256 if self.lfs else self.content.git_sha1


@dataclass(frozen=True)
class Commit:
    """A state of a repo that does not change any more."""

    sha: str
    title: str
    date: datetime
    files: Mapping[str, HubFile]


@dataclass
class Repo:
    """A model repo. `readers` are the tokens that may read it when it is private or gated."""

    id: str
    commits: dict[str, Commit]
    branches: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    readers: set[str] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        """The commit that `main` points at."""
        return self.commits[self.branches["main"]]

    def commit(self, revision: str) -> Commit:
        """Return the commit that a branch, a tag, a `refs/…` name or a full hash stands for, or raise HubError."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        for names in (self.branches, self.tags):
            if name in names:
                return self.commits[names[name]]
        if revision in self.commits:
            return self.commits[revision]
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


def make_file(path: str, content: Content, lfs: bool | None = None, xet: bool = False) -> HubFile:
    """Return a file; whether it is LFS is told by its name and its size, as on the Hub, unless `lfs` says it. `xet`:
    where it is LFS, it is stored with Xet."""
    if lfs is None:
        lfs = path.lower().endswith(LFS_SUFFIXES) or content.size > LFS_THRESHOLD
    if not lfs:
        if not content.git_sha1:
            raise ValueError(f"{path} is too large for a file that is not LFS")
        return HubFile(path, content, False, content.git_sha1, 0)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{content.sha256}\nsize {content.size}\n".encode()
    oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()
    # Xet has no file without a byte.
    return HubFile(path, content, True, oid, len(pointer), xet and content.size > 0)


class Catalog:
    """All repos, and who may see them. Safe to use from several threads."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.tokens = dict(tokens)
        self._repos: dict[str, Repo] = {}
        self._renamed: dict[str, str] = {}
        self._contents: dict[str, Content] = {}
        self._lock = threading.RLock()
        self._commits = 0

    def put(self, repo_id: str, files: Collection[HubFile], branch: str, title: str) -> tuple[Repo, Commit]:
        """Commit `files` as all that the repo holds now, making the repo when it is new, and move the branch there."""
        with self._lock:
            repo = self._repos.get(repo_id)
            self._commits += 1
            parent = repo.branches.get(branch, "") if repo else ""
            state = [parent, repo_id, str(self._commits), *(f"{file.path} {file.oid}" for file in files)]
            sha = hashlib.sha1("\n".join(state).encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
            date = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=self._commits)
            commit = Commit(sha, title, date, {file.path: file for file in files})
            for file in files:
                self._contents[file.content.sha256] = file.content
            if repo is None:
                repo = self._repos[repo_id] = Repo(repo_id, {}, {})
                # The Hub's hash of an id, in the form of its 24 hexadecimal digits.
                repo.meta["_id"] = hashlib.sha256(repo_id.encode()).hexdigest()[:24]
                repo.meta["createdAt"] = stamp(date)
            repo.commits[sha] = commit
            repo.branches[branch] = sha
            return repo, commit

    def delete(self, repo_id: str) -> None:
        """Take a repo away; URLs that were signed for its files work on until they expire."""
        with self._lock:
            del self._repos[repo_id]

    def rename(self, old: str, new: str) -> None:
        """Give a repo a new id; the old one redirects to it."""
        with self._lock:
            repo = self._repos.pop(old)
            repo.id = new
            self._repos[new] = repo
            self._renamed[old] = new

    def new_name(self, repo_id: str) -> str | None:
        """Return the id that a renamed repo has now."""
        with self._lock:
            if repo_id in self._repos:
                return None
            while repo_id in self._renamed:
                repo_id = self._renamed[repo_id]
                if repo_id in self._repos:
                    return repo_id
            return None

    def get(self, repo_id: str) -> Repo:
        """Return a repo, or raise KeyError."""
        with self._lock:
            return self._repos[repo_id]

    def content(self, sha256: str) -> Content | None:
        """Return the content with this hash, whichever file of whichever commit it was put in."""
        with self._lock:
            return self._contents.get(sha256)

    def visible(self, token: str | None) -> list[Repo]:
        """Return the repos that a search may show to the bearer of `token`."""
        with self._lock:
            return [repo for repo in self._repos.values() if not repo.private or self._reads(repo, token)]

    def check_token(self, token: str | None) -> None:
        """Raise the Hub's error for a token that it does not know."""
        if token is not None and token not in self.tokens:
            raise HubError(401, None, "Invalid credentials in Authorization header")

    def see(self, repo_id: str, token: str | None) -> Repo:
        """Return a repo whose listing the bearer of `token` may see, or raise HubError.

        As on the Hub, a repo that is missing and one that is hidden look the same: 401 without a token, 404 with one.
        """
        self.check_token(token)
        with self._lock:
            repo = self._repos.get(repo_id)
            if repo is None or (repo.private and not self._reads(repo, token)):
                if token is None:
                    raise HubError(401, "RepoNotFound", "Invalid username or password.")
                raise HubError(404, "RepoNotFound", "Repository not found")
            return repo

    def open(self, repo_id: str, token: str | None) -> Repo:
        """Return a repo whose files the bearer of `token` may read, or raise HubError. Gated repos stop here."""
        repo = self.see(repo_id, token)
        if repo.gated and not self._reads(repo, token):
            text = f"Access to model {repo_id} is restricted"
            if token is None:
                must = "You must have access to it and be authenticated to access it. Please log in."
                raise HubError(401, "GatedRepo", f"{text}. {must}")
            how = f"Visit https://huggingface.co/{repo_id} to ask for access."
            raise HubError(403, "GatedRepo", f"{text} and you are not in the authorized list. {how}")
        return repo

    def _reads(self, repo: Repo, token: str | None) -> bool:
        if token is None or token not in self.tokens:
            return False
        # A private repo shows itself to its owner, who here is everybody with a token; a gated one must be granted.
        return token in repo.readers if repo.readers is not None else not repo.gated


def stamp(date: datetime) -> str:
    """Return a time as the Hub writes it."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")
