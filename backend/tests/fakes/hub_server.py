"""A Hub on loopback: a real HTTP server that speaks the Hugging Face Hub's protocol, with faults to order.

    with HubServer() as hub:
        hub.add_model("org/name", mlx_model_files(size=100 << 20))
        stall = hub.fault(Fault.stall(after=1 << 20), where="cdn", path="*.safetensors", times=1)
        ...  # a client with HF_ENDPOINT=hub.url
        stall.wait_hit()

Two ports: `url` is the Hub (metadata, small files), `cdn_url` holds the LFS files behind signed URLs. With `xet=True`
a third one, `cas_url`: the same LFS files by Xet, see hub_xet.py.
Runs as a process too: `python -m fakes.hub_server --help`.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from fakes.hub_api import HubApi
from fakes.hub_blobs import Blob, BlobStore, Disk, Source
from fakes.hub_control import PREFIX as CONTROL
from fakes.hub_control import Control
from fakes.hub_faults import Fault
from fakes.hub_files import HubFiles, UrlSigner
from fakes.hub_http import Port
from fakes.hub_log import Record, RequestLog
from fakes.hub_message import Exchange, Request, parse_range
from fakes.hub_models import mlx_model_files
from fakes.hub_outage import Outages
from fakes.hub_repo import Catalog, HubFile, Repo, make_file
from fakes.hub_rules import FaultBook, FaultHandle, Rule
from fakes.hub_xet import Xet

__all__ = ["TOKEN", "Blob", "Disk", "Fault", "FaultHandle", "HubServer", "Record", "Source", "mlx_model_files"]

TOKEN = "hf_TestTokenTestTokenTestTokenTestTok"
"""The token that every hub knows unless it is told others."""


class HubServer:
    """The test hub. Everything may be called from any thread, before and after `start`, which listens.

    `tokens`: valid tokens and whose they are. `rate`, `latency`: a link for everybody, bytes a second for each
    response and seconds before each answer. `blob_dir`: keep generated content there, for the next hub to find.
    `cdn_host`: how the CDN's URLs call this machine, for clients that tell hosts by their name. `control`: take orders
    at `/_control/` (hub_control.py), as the hub does when it is a process. `xet`: LFS files are to be had by Xet
    too, `xorb_size` bytes of them in one xorb.
    """

    def __init__(
        self,
        *,
        tokens: Mapping[str, str] | None = None,
        page_size: int = 1000,
        url_lifetime: float = 3600,
        rate: float | None = None,
        latency: float = 0,
        port: int = 0,
        cdn_port: int = 0,
        cdn_host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        blob_dir: Path | None = None,
        control: bool = False,
        xet: bool = False,
        xorb_size: int = 64 << 20,
    ) -> None:
        self._stack = ExitStack()
        if blob_dir is None:
            blob_dir = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-blobs-")))
        self._blobs = BlobStore(blob_dir)
        self._log = RequestLog()
        self._faults = FaultBook(self._log)
        self._catalog = Catalog({TOKEN: "tester"} if tokens is None else tokens)
        self._hub = Port("hub", self._answer_hub, self._log, self._faults, port=port, tls=tls)
        self._cdn = Port("cdn", self._answer_cdn, self._log, self._faults, port=cdn_port, tls=tls)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._hub.number}"
        self.cdn_url = f"{scheme}://{cdn_host}:{self._cdn.number}"
        self._signer = UrlSigner(self.cdn_url, url_lifetime)
        self._files = HubFiles(self._catalog, self._signer)
        self._api = HubApi(self._catalog, self.url, page_size)
        self._cas = Port("cas", self._answer_cas, self._log, self._faults, port=0, tls=tls) if xet else None
        self.cas_url = f"{scheme}://127.0.0.1:{self._cas.number}" if self._cas else ""
        self._xet = Xet(self._catalog, self.url, self.cas_url, blob_dir, xorb_size) if xet else None
        if self._xet is not None:
            self._files.announce = self._xet.announce
        self._outages = Outages(self._log, self.network_down, self.network_up)
        self._control = Control(self.fault, self._signer.expire, self._log, self._outages) if control else None
        if latency:
            self.fault(Fault.delay(latency))
        if rate:
            self.fault(Fault.rate(rate))

    # -- life

    def start(self) -> Self:
        """Listen on all ports."""
        for port in self._ports():
            port.open()
        return self

    def stop(self) -> None:
        """Reset all connections, join all threads, remove what was generated. A second call does nothing."""
        self._outages.close()
        for port in self._ports():
            port.close()
        self._faults.close()
        self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def network_down(self, port: str | None = None) -> None:
        """Reset every connection and refuse new ones, on all ports or on one of `hub`, `cdn` and `cas`."""
        for one in self._ports(port):
            one.close()

    def network_up(self, port: str | None = None) -> None:
        """Listen again, on the same numbers."""
        for one in self._ports(port):
            if not one.is_open:
                one.open()

    @property
    def is_up(self) -> bool:
        """Whether all ports take connections."""
        return all(port.is_open for port in self._ports())

    def outage(self, seconds: float, after: int = 0) -> None:
        """Cut the network for so long once `after` more bytes of files have gone out. Returns at once."""
        self._outages.order(seconds, after)

    # -- repos

    def add_model(
        self,
        repo_id: str,
        files: Mapping[str, Source],
        *,
        private: bool = False,
        gated: bool = False,
        readers: Collection[str] | None = None,
        lfs: Mapping[str, bool] | None = None,
        xet: Mapping[str, bool] | None = None,
        **meta: Any,
    ) -> str:
        """Add a model repo (or commit to the one there is) and return its commit.

        `readers`: tokens that may read it when private or gated; by default any valid token reads a private one, none
        a gated one. `lfs`: says for a path whether it is LFS, where its name and size would not; `xet`: False for a
        path that Xet does not have. `meta`: what info and search say about it (`tags`, `downloads`, `likes`,
        `pipeline_tag`, `cardData`, `lastModified`, …).
        """
        commit = self.commit(repo_id, files, lfs=lfs, xet=xet)
        repo = self._catalog.get(repo_id)
        repo.private, repo.gated = private, gated
        repo.readers = None if readers is None else set(readers)
        safetensors = any(path.endswith(".safetensors") for path in files)
        repo.meta.setdefault("tags", ["mlx", *(["safetensors"] if safetensors else [])])
        repo.meta.update(meta)
        return commit

    def add_folder(self, repo_id: str, folder: Path, **options: Any) -> str:
        """Add a model repo out of a folder's files, which are served from where they are."""
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        files: dict[str, Source] = {path.relative_to(folder).as_posix(): Disk(path) for path in paths}
        return self.add_model(repo_id, files, **options)

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, Source],
        *,
        branch: str = "main",
        lfs: Mapping[str, bool] | None = None,
        xet: Mapping[str, bool] | None = None,
        keep: bool = False,
        title: str = "Upload model",
    ) -> str:
        """Move a branch to a new commit that holds `files` (and, with `keep`, what was there); returns its hash."""
        made = {
            path: make_file(
                path,
                self._blobs.content(source),
                (lfs or {}).get(path),
                self._xet is not None and (xet or {}).get(path, True),
            )
            for path, source in files.items()
        }
        for file in made.values():
            if self._xet is not None and file.xet:
                self._xet.add(file)
        before: Mapping[str, HubFile] = {}
        if keep:
            repo = self._catalog.get(repo_id)
            before = repo.commits[repo.branches.get(branch, repo.branches["main"])].files
        _, commit = self._catalog.put(repo_id, list({**before, **made}.values()), branch, title)
        return commit.sha

    def tag(self, repo_id: str, name: str, commit: str | None = None) -> None:
        """Tag a commit, by default the one that `main` points at."""
        repo = self._catalog.get(repo_id)
        repo.tags[name] = commit or repo.head.sha

    def repo(self, repo_id: str) -> Repo:
        """Return a repo as the hub keeps it: commits, branches, files with their hashes and sizes."""
        return self._catalog.get(repo_id)

    def file(self, repo_id: str, path: str, revision: str = "main") -> HubFile:
        """Return a file of a repo; `.etag` is the hash that a download is checked against."""
        return self._catalog.get(repo_id).commit(revision).files[path]

    def content(self, repo_id: str, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes of a file at `main`, all of them unless told otherwise."""
        content = self.file(repo_id, path).content
        return content.read(start, content.size if stop is None else stop)

    def grant(self, repo_id: str, token: str = TOKEN) -> None:
        """Let the bearer of `token` read a gated or private repo from now on."""
        repo = self._catalog.get(repo_id)
        repo.readers = {*(repo.readers or ()), token}

    def delete(self, repo_id: str) -> None:
        """Take a repo away."""
        self._catalog.delete(repo_id)

    def rename(self, old: str, new: str) -> None:
        """Give a repo a new id; the old one answers 307."""
        self._catalog.rename(old, new)

    def expire_urls(self) -> None:
        """Make every signed URL that was given out answer 403, and every token for Xet 401."""
        self._signer.expire()
        if self._xet is not None:
            self._xet.expire()

    @property
    def url_lifetime(self) -> float:
        """For how many seconds the URLs signed from now on are good."""
        return self._signer.lifetime

    @url_lifetime.setter
    def url_lifetime(self, seconds: float) -> None:
        self._signer.lifetime = seconds
        if self._xet is not None:
            self._xet.signer.lifetime = seconds

    @property
    def page_size(self) -> int:
        """The most entries on one page of a tree or a search."""
        return self._api.page_size

    @page_size.setter
    def page_size(self, entries: int) -> None:
        self._api.page_size = entries

    @property
    def resolve_cache(self) -> bool:
        """Whether small files are redirected once within the Hub, with a relative Location."""
        return self._files.resolve_cache

    @resolve_cache.setter
    def resolve_cache(self, on: bool) -> None:
        self._files.resolve_cache = on

    # -- faults

    def fault(
        self,
        fault: Fault,
        where: str | None = None,
        path: str | None = None,
        *,
        repo: str | None = None,
        method: str | None = None,
        connection: int | None = None,
        times: int | None = None,
        nth: int | Collection[int] | None = None,
        when: Callable[[Request], bool] | None = None,
    ) -> FaultHandle:
        """Switch a fault on for the requests for which all that is given holds.

        `where`: `hub`, `cdn`, `cas` (the port), `info`, `tree`, `refs`, `search`, `whoami`, `resolve`, `xet-token`,
        `reconstruction`, `xorb` (the route) or `content` (bytes of a file, from any port). `path`: a pattern for the
        file in its repo, or for the URL's path. `nth`: only the n-th such request, from 1; `times`: only so many.
        """
        nths = {nth} if isinstance(nth, int) else nth
        return self._faults.add(fault, Rule(where, path, repo, method, connection, times, nths, when))

    def clear_faults(self) -> None:
        """Switch all faults off, the link that the hub was made with too."""
        self._faults.clear()

    # -- the log

    def requests(self, where: str | None = None, path: str | None = None, **filters: Any) -> list[Record]:
        """Return the requests so far; filters: `method`, `status`, `repo`."""
        return self._log.find(where, path, **filters)

    def bytes_sent(self, path: str | None = None, where: str | None = "content") -> int:
        """Return how many bytes of files went out, over all requests whose file matches `path`."""
        return sum(record.sent for record in self._log.find(where, path))

    def ranges(self, path: str | None = None) -> list[tuple[int, int]]:
        """Return what was asked of the files' bytes, as (start, stop), in the order of asking."""
        found = []
        for record in self._log.find("content", path):
            found.append(parse_range(record.range, record.size) or (0, record.size))
        return found

    def clear_log(self) -> None:
        """Forget finished requests."""
        self._log.clear()

    @property
    def in_flight(self) -> int:
        """How many answers are under way."""
        return self._log.in_flight

    @property
    def connections_open(self) -> int:
        """How many connections there are now."""
        return self._log.connections_open

    @property
    def connections_made(self) -> int:
        """How many connections there have been."""
        return self._log.connections_made

    def wait_for(self, what: Callable[[], object] | int, timeout: float = 10, **filters: Any) -> list[Record]:
        """Wait for a predicate to come true, or for so many requests that match; returns those that match.

        Raises TimeoutError, with the last requests. The predicate is called at each change of the log.
        """
        if callable(what):
            self._log.wait(what, timeout, f"{what}")
        else:
            self._log.wait(lambda: len(self._log.find(**filters)) >= what, timeout, f"{what} requests {filters}")
        return self._log.find(**filters)

    def wait_sent(self, nbytes: int, path: str | None = None, timeout: float = 10) -> None:
        """Wait until so many bytes of the files that match have gone out."""
        self._log.wait(lambda: self.bytes_sent(path) >= nbytes, timeout, f"{nbytes} bytes of {path or 'files'}")

    def wait_idle(self, timeout: float = 10) -> None:
        """Wait until no answer is under way."""
        self._log.wait(lambda: self._log.in_flight == 0, timeout, f"idle ({self._log.in_flight} in flight)")

    def wait_no_connections(self, timeout: float = 10) -> None:
        """Wait until nobody is connected."""
        self._log.wait(lambda: self._log.connections_open == 0, timeout, "no connection left")

    # --

    def _ports(self, name: str | None = None) -> list[Port]:
        ports = [self._hub, self._cdn, *([self._cas] if self._cas else [])]
        return [port for port in ports if name in (None, port.name)]

    def _answer_hub(self, request: Request) -> Exchange:
        if self._control and request.raw_path.startswith(CONTROL):
            return Exchange(request, CONTROL, reply=self._control.answer(request))
        token = self._xet.token(request) if self._xet else None
        return token or self._files.resolve(request) or self._api.answer(request)

    def _answer_cdn(self, request: Request) -> Exchange:
        return self._files.cdn(request)

    def _answer_cas(self, request: Request) -> Exchange:
        assert self._xet is not None
        return self._xet.answer(request)


if __name__ == "__main__":
    from fakes.hub_command import main

    raise SystemExit(main())
