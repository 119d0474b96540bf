"""The standard cache as a place to put models: implements `ports.Cache`."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from mlx_manager.domain import words
from mlx_manager.domain.library import DeletePlan, Leftover, Library, LocalModel
from mlx_manager.domain.plan import Plan, case_collisions, check_path
from mlx_manager.errors import UnsafeFileName
from mlx_manager.services.hf_cache.deleting import Deletion
from mlx_manager.services.hf_cache.discarding import discard
from mlx_manager.services.hf_cache.layout import (
    COMMIT,
    RepoFolders,
    check_names,
    disk_errors,
    folds_names,
    has_symlinks,
    prove_writable,
)
from mlx_manager.services.hf_cache.leftovers import find_leftovers
from mlx_manager.services.hf_cache.library import LibraryReader, folder_name
from mlx_manager.services.hf_cache.linking import link_files, sweep, write_ref, write_tree
from mlx_manager.services.hf_cache.pending import note_links, settle_links
from mlx_manager.services.hf_cache.reading import read_files
from mlx_manager.services.hf_cache.staging import find_contents, firsts, places_in_snapshot
from mlx_manager.services.ports import BlobPlace, VerifiedBlobs

log = logging.getLogger(__name__)


class HfCache:
    """Implements `ports.Cache` for ``cache_dir`` (HF_HUB_CACHE). All calls block and may come from any thread.

    ``memory``: a file that keeps what was read of the library for the next process. ``verified``: what is known to be
    right still is after `link` has moved it. ``symlinks``, ``folds_case``: what the disk can do; None, the rule, finds
    out when it matters.
    """

    def __init__(
        self,
        cache_dir: Path,
        *,
        memory: Path | None = None,
        verified: VerifiedBlobs | None = None,
        symlinks: bool | None = None,
        folds_case: bool | None = None,
    ) -> None:
        self.cache_dir = cache_dir
        self._verified = verified
        self._symlinks = symlinks
        self._folds_case = folds_case
        self._library = LibraryReader(cache_dir, memory)
        # Two downloads of one commit may be about to move the same content.
        self._linking = threading.Lock()

    def prepare(self, plan: Plan) -> list[BlobPlace]:
        """Make the model's folders, prove them writable, and name the place of each of ``plan.blobs``, in order.

        The commit's listing is written already, so that from now on everybody can tell what of the model is missing.
        Raises CacheNotWritable, DiskFull, CacheFailed, UnsafeFileName.
        """
        check_names(plan)
        folders = RepoFolders.of(self.cache_dir, plan.model_id)
        with disk_errors(folders.root):
            for folder in (folders.blobs, folders.snapshots, folders.trees, folders.locks):
                prove_writable(folder)
            sweep(folders)
            # These need not be there yet; but once hundreds of gigabytes have come it is late to learn that they are
            # somebody else's.
            for folder in (folders.root, folders.refs, folders.snapshot(plan.commit)):
                if folder.is_dir():
                    prove_writable(folder)
            self._check_case(plan, folders)
            write_tree(folders, plan)
        return self.places(plan)

    def places(self, plan: Plan) -> list[BlobPlace]:
        """The place of each of ``plan.blobs``, in order. Makes nothing where nothing is. Raises CacheFailed."""
        check_names(plan)
        folders = RepoFolders.of(self.cache_dir, plan.model_id)
        with disk_errors(folders.root):
            symlinks = not folders.root.is_dir() or self._has_symlinks(folders)
            contents = self._contents(folders, plan, symlinks=symlinks)
            elsewhere = {} if symlinks else places_in_snapshot(folders, plan)
        return [
            BlobPlace(
                file,
                contents[file.etag],
                folders.part(file.etag),
                folders.lock(file.etag),
                elsewhere.get(file.etag, ()),
            )
            for file in plan.blobs
        ]

    def free_bytes(self) -> int:
        """Room on the cache's disk for this user, in bytes; the cache itself need not exist yet."""
        folder = self.cache_dir
        with disk_errors(folder):
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
            return shutil.disk_usage(folder).free

    def link(self, plan: Plan) -> Path:
        """With every blob in place: listing, snapshot, and the ref last, since it is what makes others look. Returns
        the snapshot. Twice is fine. Raises CacheFailed when a blob is not there, and as `prepare` does."""
        check_names(plan)
        folders = RepoFolders.of(self.cache_dir, plan.model_id)
        with disk_errors(folders.root), self._linking:
            folders.snapshots.mkdir(parents=True, exist_ok=True)
            if not folders.tree(plan.commit).is_file():
                write_tree(folders, plan)
            symlinks = self._has_symlinks(folders)
            contents = self._contents(folders, plan, symlinks=symlinks)
            right = [] if symlinks else self._known_right(firsts(folders, plan, contents))
            note_links(folders, plan, {} if symlinks else contents)
            try:
                snapshot = link_files(folders, plan, contents, symlinks=symlinks)
            finally:
                # Those that were moved before it broke off, too.
                if right and self._verified:
                    self._verified.remember(right)
            write_ref(folders, plan.revision, plan.commit)
            settle_links(folders, plan)
        log.debug("%s: %s linked in %s", plan.model_id, words.count(len(plan.files), "file"), snapshot)
        return snapshot

    def discard(self, plan: Plan, *, keep: Collection[str] = ()) -> int:
        """Remove what a cancelled download has left, not what others want or use; see `discarding`. Bytes freed."""
        check_names(plan)
        folders = RepoFolders.of(self.cache_dir, plan.model_id)
        with disk_errors(folders.root):
            freed = discard(folders, plan, keep)
        log.debug("%s: %s discarded", plan.model_id, words.size(freed))
        return freed

    def library(self) -> Library:
        """Every model in the cache, by name, whoever fetched it. A model that cannot be read is passed over and logged.
        Raises DiskError when the cache itself cannot be read: that is not the same as an empty one."""
        with disk_errors(self.cache_dir):
            return self._library.read()

    def local(self) -> list[LocalModel]:
        """The models of `library`."""
        return list(self.library().models)

    def files(self, model_id: str, commit: str) -> dict[str, int]:
        """Path → size of what is here of a commit; nothing where it is not here. Raises DiskError."""
        name = folder_name(model_id)
        if name is None or not COMMIT.fullmatch(commit):
            return {}
        with disk_errors(self.cache_dir):
            return read_files(str(self.cache_dir / name), commit)

    def content(self, model_id: str, commit: str, path: str, most: int) -> bytes | None:
        """The first ``most`` bytes of a file that is here; None where it is not, or cannot be read."""
        name = folder_name(model_id)
        if name is None or not COMMIT.fullmatch(commit):
            return None
        try:
            check_path(path)
            with (self.cache_dir / name / "snapshots" / commit / path).open("rb") as file:
                return file.read(most)
        except (OSError, UnsafeFileName):
            return None

    def held(self, plan: Plan, durable: Callable[[Path, str, int], int]) -> dict[str, int]:
        """Etag → bytes that are here of each content of a plan, where a transfer looks for them; only of those that
        there is something of. ``durable`` (part, etag, size): bytes of a part that a transfer goes on from. Changes
        nothing. Raises DiskError."""
        places = self.places(plan)
        found = {}
        with disk_errors(self.cache_dir):
            for place in places:
                file = place.file
                if place.blob.is_file() and place.blob.stat().st_size == file.size:
                    found[file.etag] = file.size
                elif place.part.is_file():
                    found[file.etag] = min(durable(place.part, file.etag, file.size), file.size)
        return found

    def deletion(self, model_id: str, revision: str | None = None, *, leftovers: bool = False) -> DeletePlan:
        """What `delete` would remove. Raises NotInCache, DiskError."""
        return self._deletion(model_id, revision, leftovers).plan()

    def delete(self, model_id: str, revision: str | None = None, *, leftovers: bool = False) -> DeletePlan:
        """Remove a model; with ``revision`` (a branch, a tag, a commit) that commit alone; with ``leftovers`` only what
        no commit uses: partial files, and contents that a cancelled download left. What was removed.

        It is gone for everybody at one moment, and the disk has its room back a little later. Raises NotInCache,
        ModelInUse when another process works on the model, DiskError.
        """
        plan = self._deletion(model_id, revision, leftovers).carry_out()
        log.info("%s deleted from the cache: %s freed", plan.model_id, words.size(plan.freed_bytes))
        return plan

    def _deletion(self, model_id: str, revision: str | None, leftovers: bool) -> Deletion:
        with disk_errors(self.cache_dir):
            shared = self._library.shared_by_others(model_id)
        return Deletion(self.cache_dir, model_id, revision, leftovers=leftovers, shared_by_others=shared)

    def leftovers(self, wanted: Collection[tuple[str, str]]) -> list[Leftover]:
        """What nobody is going to use: looked for, not touched. ``wanted``: model and etag of the contents that some
        download is going to go on with. Raises DiskError when the cache cannot be read."""
        with disk_errors(self.cache_dir):
            return find_leftovers(self.cache_dir, wanted)

    @staticmethod
    def _contents(folders: RepoFolders, plan: Plan, *, symlinks: bool) -> dict[str, Path]:
        """Etag → where that content is or goes: its blob; without symbolic links, see `staging`."""
        if symlinks:
            return {file.etag: folders.blob(file.etag) for file in plan.files}
        return find_contents(folders, plan)

    def _known_right(self, moves: Mapping[Path, Path]) -> list[Path]:
        """Where to those are about to be moved that were hashed and found right."""
        verified = self._verified
        return [] if verified is None else [to for place, to in moves.items() if verified.is_verified(place)]

    def _has_symlinks(self, folders: RepoFolders) -> bool:
        if self._symlinks is None:
            self._symlinks = has_symlinks(folders.root)
        return self._symlinks

    def _check_case(self, plan: Plan, folders: RepoFolders) -> None:
        clashes = case_collisions(plan.files)
        if clashes and self._folds_case is None:
            self._folds_case = folds_names(folders.blobs)
        if clashes and self._folds_case:
            raise UnsafeFileName(
                f"The disk of {self.cache_dir} takes different names for the same, and {plan.model_id} has files that "
                f"differ in no more than that: {clashes[0][:80]!r}.",
                advice="Leave them out with ignore_patterns, or put the cache (HF_HUB_CACHE) on a case-sensitive disk.",
            )
