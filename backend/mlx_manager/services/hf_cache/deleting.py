"""Taking a model, one of its commits, or what cancelled work left, out of the cache.

In this order: look that nobody works on the model and keep it so (each of its locks is held), let the snapshots vanish
by one rename, then remove what only they used. Killed in between, contents are left that no snapshot uses; the library
shows them, and deleting leftovers removes them. No link is followed, and nothing outside of the model's own folders is
touched, but for contents in the library's shared store that nobody refers to any more: those are the library's to find.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from filelock import FileLock, Timeout

from mlx_manager.domain import words
from mlx_manager.domain.library import DeletePlan
from mlx_manager.errors import CacheFailed, ModelInUse, NotInCache
from mlx_manager.services.hf_cache.layout import COMMIT, RepoFolders, disk_errors, prove_writable
from mlx_manager.services.hf_cache.library import folder_name
from mlx_manager.services.hf_cache.reading import Blobs, Place, read_blobs, read_refs, read_snapshot, scan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Doomed:
    """``whole_model``: everything in its folder. ``files``: below ``blobs``, by name."""

    commits: tuple[str, ...]
    refs: tuple[str, ...]
    files: tuple[str, ...]
    trees: tuple[str, ...]
    whole_model: bool
    freed_bytes: int
    shared_bytes: int


class Deletion:
    """One deletion, as `HfCache.delete` describes it. ``shared_by_others``: contents that other models use too."""

    def __init__(
        self,
        cache_dir: Path,
        model_id: str,
        revision: str | None,
        *,
        leftovers: bool,
        shared_by_others: Collection[Place],
    ) -> None:
        name = folder_name(model_id)
        if name is None or not (cache_dir / name).is_dir():
            raise NotInCache(f"There is no model {model_id[:200]!r} in {cache_dir}.")
        self._cache_dir = cache_dir
        self._model_id = model_id
        self._folders = RepoFolders(cache_dir / name, cache_dir / ".locks" / name)
        self._revision = revision
        self._leftovers = leftovers
        self._shared_by_others = shared_by_others
        for folder in (self._folders.root, self._folders.blobs, self._folders.snapshots):
            if folder.is_symlink():
                raise CacheFailed(
                    f"{folder} is a link to another place, and nothing outside of the cache is deleted.",
                    advice="Look where it leads, and remove by hand what you do not want.",
                )

    def plan(self) -> DeletePlan:
        """Raises NotInCache, DiskError."""
        with disk_errors(self._folders.root):
            doomed = self._doomed()
            with self._locks_held() as busy:
                return self._told(doomed, f"{self._model_id} is being downloaded by another program." if busy else None)

    def carry_out(self) -> DeletePlan:
        """Raises ModelInUse, NotInCache, DiskError."""
        with disk_errors(self._folders.root), self._locks_held() as busy:
            if busy:
                raise ModelInUse(f"Another program downloads {self._model_id} right now (it holds {busy.name}).")
            doomed = self._doomed()
            self._prove_removable()
            self._remove(doomed)
            if doomed.whole_model:
                # While they are held: whoever waits for one sees that it guards no name any more.
                shutil.rmtree(self._folders.locks, ignore_errors=True)
        return self._told(doomed, None)

    def _told(self, doomed: _Doomed, blocked: str | None) -> DeletePlan:
        note = None
        if self._leftovers and not doomed.files:
            note = "There are no leftovers: every content here belongs to a commit."
        elif doomed.whole_model and self._revision is not None:
            note = "It is the only commit here: the whole model goes."
        elif doomed.shared_bytes:
            note = f"{words.size(doomed.shared_bytes)} stay: another commit or model uses them too."
        return DeletePlan(
            model_id=self._model_id,
            revisions=doomed.commits,
            freed_bytes=doomed.freed_bytes,
            shared_bytes=doomed.shared_bytes,
            files=len(doomed.files),
            whole_model=doomed.whole_model,
            blocked=blocked,
            note=note,
        )

    # -- what is to go

    def _doomed(self) -> _Doomed:
        blobs = read_blobs(str(self._folders.blobs), [])
        refs = read_refs(str(self._folders.refs), [])
        snapshots = self._snapshots(blobs)
        if self._leftovers:
            return self._unused(blobs, snapshots)
        if self._revision is None:
            return self._everything(blobs, snapshots, refs)
        commit = self._commit(refs, snapshots)
        if not snapshots.keys() - {commit}:
            return self._everything(blobs, snapshots, refs)
        mine = snapshots[commit]
        others = {place for other, places in snapshots.items() if other != commit for place in places}
        by_place = {place: name for name, (_, place) in blobs.whole.items()}
        files = [by_place[place] for place in mine if place in by_place and place not in others]
        return _Doomed(
            commits=(commit,),
            refs=tuple(sorted(refs.get(commit, ()))),
            files=tuple(sorted(files)),
            trees=(commit,),
            whole_model=False,
            freed_bytes=sum(size for place, size in mine.items() if place not in others and not self._stays(place)),
            shared_bytes=sum(size for place, size in mine.items() if place in others or self._stays(place)),
        )

    def _everything(self, blobs: Blobs, snapshots: dict[str, dict[Place, int]], refs: dict[str, set[str]]) -> _Doomed:
        places = {**blobs.own, **blobs.shared}
        for found in snapshots.values():
            places.update(found)
        stays = sum(size for place, size in places.items() if self._stays(place))
        return _Doomed(
            commits=tuple(sorted(snapshots)),
            refs=tuple(sorted(name for names in refs.values() for name in names)),
            files=tuple(sorted(entry.name for entry in scan(str(self._folders.blobs)))),
            trees=(),
            whole_model=True,
            freed_bytes=sum(places.values()) - stays,
            shared_bytes=stays,
        )

    def _unused(self, blobs: Blobs, snapshots: dict[str, dict[Place, int]]) -> _Doomed:
        used = {place for places in snapshots.values() for place in places}
        files, freed = [], blobs.partial_bytes
        for name, (size, place) in blobs.whole.items():
            if place not in used:
                files.append(name)
                freed += 0 if self._stays(place) else size
        partial = [entry.name for entry in scan(str(self._folders.blobs)) if entry.name not in blobs.whole]
        trees = [name.name.removesuffix(".json") for name in scan(str(self._folders.trees))]
        return _Doomed(
            commits=(),
            refs=(),
            files=tuple(sorted(files + partial)),
            # The listing of a commit that never got a snapshot belongs to the work that was given up.
            trees=tuple(sorted(commit for commit in trees if COMMIT.fullmatch(commit) and commit not in snapshots)),
            whole_model=not snapshots,
            freed_bytes=freed,
            shared_bytes=0,
        )

    def _snapshots(self, blobs: Blobs) -> dict[str, dict[Place, int]]:
        """Commit → place and size of each of its contents."""
        found = {}
        for entry in scan(str(self._folders.snapshots)):
            if entry.is_dir(follow_symlinks=False):
                present, _ = read_snapshot(entry.path, blobs, [])
                found[entry.name] = {place: size for size, place in present.values()}
        return found

    def _commit(self, refs: dict[str, set[str]], snapshots: Collection[str]) -> str:
        """The commit that the revision stands for here. Raises NotInCache."""
        if self._revision in snapshots:
            assert self._revision is not None
            return self._revision
        for commit, names in refs.items():
            if self._revision in names and commit in snapshots:
                return commit
        raise NotInCache(
            f"{self._model_id} is here, but not at the revision {self._revision!r}.",
            advice="GET /api/models/local and `mlx-manager ls --json` name the commits that are here.",
        )

    def _stays(self, place: Place) -> bool:
        return place in self._shared_by_others

    # -- how it goes

    def _prove_removable(self) -> None:
        """That a part could be removed must be known before the first is gone."""
        for folder in (self._folders.root, self._folders.blobs, self._folders.snapshots):
            if folder.is_dir():
                prove_writable(folder)

    def _remove(self, doomed: _Doomed) -> None:
        folders = self._folders
        trash = folders.temporary()
        if doomed.whole_model and folders.snapshots.is_dir():
            folders.snapshots.rename(trash)
        elif not doomed.whole_model:
            trash.mkdir()
            for commit in doomed.commits:
                folders.snapshot(commit).rename(trash / commit)
        blobs = frozenset(folders.blobs / name for name in doomed.files)
        # The library's own way to remove: it knows what becomes of the shared store.
        huggingface_hub.DeleteCacheStrategy(
            expected_freed_size=doomed.freed_bytes,
            blobs=frozenset() if doomed.whole_model else blobs,
            refs=frozenset() if doomed.whole_model else frozenset(folders.refs / name for name in doomed.refs),
            repos=frozenset({folders.root}) if doomed.whole_model else frozenset(),
            snapshots=frozenset() if doomed.whole_model else frozenset({trash}),
            cache_dir=self._cache_dir,
        ).execute()
        for commit in doomed.trees:
            for file in (folders.tree(commit), *folders.linking(commit)):
                file.unlink(missing_ok=True)
        left = [path for path in ({folders.root} if doomed.whole_model else {trash, *blobs}) if path.exists()]
        if left:
            raise CacheFailed(
                f"{self._model_id} is gone from the library, but some of its files could not be removed: {left[0]}.",
                advice="Check who owns the files in the cache, then delete the model's leftovers.",
            )

    @contextmanager
    def _locks_held(self) -> Iterator[Path | None]:
        """Hold every lock of the model; the first that somebody else has, or None."""
        with ExitStack() as held:
            busy = None
            for entry in scan(str(self._folders.locks)):
                if not entry.name.endswith(".lock"):
                    continue
                lock = FileLock(entry.path, timeout=0, mode=0o664)
                try:
                    held.enter_context(lock)
                except Timeout:
                    busy = Path(entry.path)
                    break
            yield busy
