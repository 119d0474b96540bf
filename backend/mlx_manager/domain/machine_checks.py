"""What is found on this machine, and what it means for the person. Facts in, findings out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_manager.domain import words
from mlx_manager.domain.diagnosis import Finding, note, well, wrong
from mlx_manager.domain.library import Leftover
from mlx_manager.domain.plan import ROOM_TO_LEAVE

LITTLE_ROOM = 5_000_000_000
FEW_FILES = 10_000
SHOWN = 3


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """``url``, ``pid`` and ``version`` as the last server announced itself, None when none did. ``alive``: there is a
    process with its number. ``answers``: it is the one that answers at its address. ``problem`` and ``advice``: what it
    says of itself that is not well."""

    url: str | None = None
    pid: int = 0
    version: str = ""
    alive: bool = False
    answers: bool = False
    problem: str | None = None
    advice: str = ""


def judge_server(server: ServerFacts, own_version: str) -> Finding:
    if server.url is None:
        return well("not running; `mlx-manager serve` starts it, and `pull` does without")
    if server.answers and server.problem is not None:
        return wrong(f"runs at {server.url}, and says: {server.problem}", server.advice)
    if server.answers and server.version != own_version:
        said = f"runs at {server.url}, but is version {server.version} and this command is {own_version}"
        return note(said, "End it and start it again; downloads go on where they stood.", f"kill {server.pid}")
    if server.answers:
        return well(f"runs at {server.url}, version {server.version}, process {server.pid}")
    if server.alive:
        said = f"process {server.pid} holds the data folder, but does not answer at {server.url}"
        advice = "If it stays so, end it and start it again; downloads go on where they stood."
        return wrong(said, advice, f"kill {server.pid}")
    return well("not running; the last one was ended without notice, and the next start takes up what it left")


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """``problem``: why nothing can be written there, in the system's words; None when a file could be. ``full``: its
    disk has no room."""

    path: str
    exists: bool
    problem: str | None = None
    full: bool = False


def judge_data_folder(folder: FolderFacts) -> Finding:
    if folder.full:
        advice = "Free some room on its disk, or set MLX_MANAGER_HOME to another folder: nothing can be noted now."
        return wrong(f"{folder.path} cannot be written to: {folder.problem}", advice)
    if folder.problem is not None:
        advice = "Give this user write access to it, or set MLX_MANAGER_HOME to another folder."
        return wrong(f"{folder.path} cannot be written to: {folder.problem}", advice, _own(folder.path))
    return well(folder.path if folder.exists else f"{folder.path}, made at the first start")


def _own(path: str) -> str:
    return f'sudo chown -R "$(id -un)" {shlex.quote(path)}'


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """``symlinks``, ``locks``: they were tried and work; None where nothing could be tried. ``elsewhere``: places in
    the cache that lie on another disk than the cache itself."""

    folder: FolderFacts
    symlinks: bool | None = None
    locks: bool | None = None
    elsewhere: Sequence[str] = ()


def judge_cache(cache: CacheFacts) -> Finding:
    path = cache.folder.path
    if cache.folder.full:
        advice = (
            "Free some room on its disk, or set HF_HUB_CACHE to another folder; `mlx-manager ls` shows what is there."
        )
        return wrong(f"{path} cannot be written to: {cache.folder.problem}", advice)
    if cache.folder.problem is not None:
        advice = "Give this user write access to it, or set HF_HUB_CACHE to another folder."
        return wrong(f"{path} cannot be written to: {cache.folder.problem}", advice, _own(path))
    if cache.locks is False:
        advice = "Let no two programs fetch models at once, or put the cache on a local disk (HF_HUB_CACHE)."
        return wrong(f"{path} is on a disk without working file locks", advice)
    if cache.elsewhere:
        places = _listed(cache.elsewhere)
        advice = "Free room is measured on the cache's own disk. Move them there, or look after their room yourself."
        return note(f"{path} is spread over several disks: {places}", advice)
    if cache.symlinks is False:
        advice = "It works, but a file that two revisions of a model share is kept twice."
        return note(f"{path} is on a disk without symbolic links", advice)
    if not cache.folder.exists:
        return well(f"{path}, made at the first download")
    return well(f"{path}; symbolic links and locks work")


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The cache's disk, for this user. ``files_free`` is None where the file system has no fixed number of files.
    ``owed``: bytes that the unfinished downloads still have to get."""

    free: int
    total: int
    files_free: int | None
    owed: int = 0
    owing: int = 0


def judge_disk(disk: DiskFacts) -> Finding:
    free = f"{words.size(disk.free)} free of {words.size(disk.total)}"
    show = "`mlx-manager ls` shows what takes the room."
    if disk.files_free is not None and disk.files_free < FEW_FILES:
        left = words.count(disk.files_free, "file")
        return wrong(f"{free}, but room for no more than {left} more (inodes)", "Delete some small files.", "df -i")
    if disk.free < ROOM_TO_LEAVE:
        return wrong(f"full: {free}", f"Free some space; {show}", "mlx-manager ls")
    if disk.owed and disk.owed + ROOM_TO_LEAVE > disk.free:
        short = words.size(disk.owed + ROOM_TO_LEAVE - disk.free)
        owing = "The unfinished download needs" if disk.owing == 1 else f"The {disk.owing} unfinished downloads need"
        said = f"{free}; {owing[0].lower()}{owing[1:]} {words.size(disk.owed)} more, {short} are missing"
        return wrong(said, f"Free some space, or cancel one (`mlx-manager ps`); {show}", "mlx-manager ls")
    if disk.free < LITTLE_ROOM:
        return note(f"{free}: little for models", f"Free some space; {show}", "mlx-manager ls")
    return well(free)


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """``schema``: what the file says, None in an empty one; ``newest``: what this version writes. ``problem``: why it
    cannot be read, or what is broken in it."""

    path: str
    exists: bool
    problem: str | None = None
    schema: str | None = None
    newest: str = ""
    downloads: int = 0
    unfinished: int = 0
    failed: int = 0


def judge_database(database: DatabaseFacts) -> Finding:
    if not database.exists:
        return well("none yet, made at the first start")
    if database.problem is not None:
        advice = "Stop the server, then move it away: models stay, the list of downloads begins anew."
        aside = shlex.quote(f"{database.path}.damaged")
        return wrong(database.problem, advice, f"mv {shlex.quote(database.path)} {aside}")
    if database.schema is not None and database.schema > database.newest:
        said = f"written by a newer version (schema {database.schema}; this one knows {database.newest})"
        return wrong(said, "Update MLX Manager, or set MLX_MANAGER_HOME to another folder.")
    if database.schema != database.newest:
        return well("whole; the next start brings it up to date")
    held = [words.count(database.downloads, "download")]
    if database.unfinished:
        held.append(f"{database.unfinished} unfinished")
    if database.failed:
        held.append(f"{database.failed} failed")
    return well(f"whole, {', '.join(held)}")


def judge_leftovers(leftovers: Sequence[Leftover]) -> Finding:
    if not leftovers:
        return well("none")
    models = sorted({one.model_id for one in leftovers if one.model_id is not None})
    others = [shlex.quote(one.path) for one in leftovers if one.model_id is None]
    said = f"{words.count(len(leftovers), 'file')} that no download waits for"
    if size := sum(one.size for one in leftovers):
        said += f", {words.size(size)}"
    advice = "They do no harm but take room. This removes them."
    if models:
        said += f": unfinished files of {_listed(models)}"
        advice = f"`mlx-manager pull {models[0]}` would go on with them. This removes them instead."
    removals = [f"mlx-manager rm {model_id} --leftovers" for model_id in models]
    if others:
        removals.append(f"rm -r -- {' '.join(others)}")
    return note(said, advice, " && ".join(removals))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
