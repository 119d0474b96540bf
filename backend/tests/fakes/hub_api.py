"""The Hub's JSON API: info, tree, refs, search, whoami."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from fakes.hub_cards import card_of, config_of, safetensors_of, tags_of
from fakes.hub_message import Exchange, HubError, Reply, Request
from fakes.hub_repo import Catalog, Commit, HubFile, Repo, stamp

SUBPAGES = ("revision", "tree", "refs", "paths-info")
SORTS = {"downloads": "downloads", "likes": "likes", "lastModified": "lastModified", "createdAt": "createdAt"}


Call = Callable[[Request, str, Sequence[str]], Reply]


class HubApi:
    """Answers what lies under /api. `page_size` is the most entries that a tree's page or a search's page holds."""

    def __init__(self, catalog: Catalog, base_url: str, page_size: int) -> None:
        self._catalog = catalog
        self._base_url = base_url
        self.page_size = page_size

    def answer(self, request: Request) -> Exchange:
        """Return the answer, which is an error in the Hub's manner when something is wrong with the request."""
        parts = request.segments[1:]
        if parts == ["whoami-v2"]:
            return self._attempt(Exchange(request, "whoami"), self._whoami)
        if parts == ["models"]:
            return self._attempt(Exchange(request, "search"), self._search)
        if parts[:1] != ["models"] or len(parts) < 2:
            return self._attempt(Exchange(request, "other"), self._nothing)
        named = 1 if len(parts) == 2 or parts[2] in SUBPAGES else 2
        repo_id, rest = "/".join(parts[1 : 1 + named]), parts[1 + named :]
        route = rest[0] if rest[:1] in (["tree"], ["refs"], ["paths-info"]) else "info"
        exchange = Exchange(request, route, repo_id)
        if new_name := self._catalog.new_name(repo_id):
            exchange.reply = moved(request, f"/api/models/{repo_id}", f"/api/models/{new_name}")
            return exchange
        if route == "info" and rest and (rest[0] != "revision" or len(rest) != 2):
            return self._attempt(exchange, self._nothing)
        calls = {"tree": self._tree, "refs": self._refs, "paths-info": self._paths_info}
        return self._attempt(exchange, calls.get(route, self._info), rest)

    def _attempt(self, exchange: Exchange, call: Call, rest: Sequence[str] = ()) -> Exchange:
        try:
            exchange.reply = call(exchange.request, exchange.repo, rest)
        except HubError as error:
            exchange.reply = error.reply()
        return exchange

    def _nothing(self, request: Request, repo_id: str, rest: Sequence[str]) -> Reply:
        raise HubError(404, None, "Sorry, we can't find the page you are looking for.")

    def _whoami(self, request: Request, repo_id: str, rest: Sequence[str]) -> Reply:
        if request.token is None or request.token not in self._catalog.tokens:
            raise HubError(401, None, "Invalid username or password.")
        name = self._catalog.tokens[request.token]
        role = {"type": "access_token", "accessToken": {"displayName": "test", "role": "read"}}
        return Reply(
            200, document={"type": "user", "id": "0" * 24, "name": name, "fullname": name, "orgs": [], "auth": role}
        )

    def _info(self, request: Request, repo_id: str, rest: Sequence[str]) -> Reply:
        repo = self._catalog.see(repo_id, request.token)
        commit = repo.commit(rest[1]) if len(rest) == 2 else repo.head
        document = describe(repo, commit)
        document["siblings"] = [sibling(file, request.flag("blobs")) for file in commit.files.values()]
        document = {"config": config_of(commit), "cardData": card_of(commit), **_safetensors(commit), **document}
        document["usedStorage"] = sum(file.content.size for file in commit.files.values())
        if expand := wanted(request):
            document = {key: value for key, value in document.items() if key in {"_id", "id", *expand}}
        return Reply(200, document=document)

    def _refs(self, request: Request, repo_id: str, rest: Sequence[str]) -> Reply:
        repo = self._catalog.see(repo_id, request.token)

        def refs(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in names.items()]

        document = {"branches": refs("heads", repo.branches), "tags": refs("tags", repo.tags), "converts": []}
        return Reply(200, document={**document, "pullRequests": []})

    def _tree(self, request: Request, repo_id: str, rest: Sequence[str]) -> Reply:
        repo = self._catalog.see(repo_id, request.token)
        commit = repo.commit(rest[1] if len(rest) > 1 else "main")
        folder = "/".join(rest[2:]).strip("/")
        entries = tree_entries(commit, folder, request.flag("recursive"), request.flag("expand"))
        if folder and not entries:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist on {rest[1]!r}")
        # The Hub's pages are short when each entry comes with its last commit.
        most = min(self.page_size, 50) if request.flag("expand") else self.page_size
        page, headers = self._page(request, entries, min(int(request.ask("limit") or most), most))
        return Reply(200, {**headers, "X-Repo-Commit": commit.sha}, page)

    def _paths_info(self, request: Request, repo_id: str, rest: Sequence[str]) -> Reply:
        commit = self._catalog.see(repo_id, request.token).commit(rest[1] if len(rest) > 1 else "main")
        form = parse_qs(request.body.decode())
        expand = form.get("expand", [""])[0].lower() in ("1", "true")
        entries = tree_entries(commit, "", True, expand)
        return Reply(200, document=[entry for entry in entries if entry["path"] in form.get("paths", [])])

    def _search(self, request: Request, repo_id: str, rest: Sequence[str]) -> Reply:
        self._catalog.check_token(request.token)
        filters = {tag for values in request.query.get("filter", []) for tag in values.split(",") if tag}
        words = request.ask("search").lower().split()
        found = []
        for repo in self._catalog.visible(request.token):
            document = describe(repo, repo.head)
            if (
                all(word in repo.id.lower() for word in words)
                and request.ask("author") in ("", repo.id.split("/")[0])
                and request.ask("pipeline_tag") in ("", document["pipeline_tag"])
                and (not request.ask("gated") or request.flag("gated") == repo.gated)
                and filters <= {*document["tags"], document["library_name"], document["pipeline_tag"]}
            ):
                found.append((document, repo))
        key = SORTS.get(request.ask("sort"), "trendingScore")
        found.sort(key=lambda pair: pair[0][key], reverse=request.ask("direction", "-1") == "-1")
        limit = int(request.ask("limit") or self.page_size)
        page, headers = self._page(request, found, min(limit, self.page_size))
        return Reply(200, headers, [listed(request, document, repo) for document, repo in page])

    def _page(self, request: Request, entries: list[Any], size: int) -> tuple[list[Any], dict[str, str]]:
        """Return one page and the Link to the next, which repeats the query and adds the cursor."""
        start = int(request.ask("cursor") or 0)
        page = entries[start : start + size]
        if start + size >= len(entries):
            return page, {}
        query = parse_qs(request.target.partition("?")[2], keep_blank_values=True)
        query["cursor"] = [str(start + size)]
        url = f"{self._base_url}{request.raw_path}?{urlencode(query, doseq=True)}"
        return page, {"Link": f'<{url}>; rel="next"'}


def wanted(request: Request) -> list[str]:
    """Return the properties that `expand` names."""
    return [name for key in ("expand", "expand[]") for value in request.query.get(key, []) for name in value.split(",")]


def listed(request: Request, document: dict[str, Any], repo: Repo) -> dict[str, Any]:
    """Return a repo as a search lists it: with what was asked for, and with `expand` with nothing else."""
    commit = repo.head
    expand = wanted(request)
    if request.flag("full") or "siblings" in expand:
        document["siblings"] = [sibling(file, False) for file in commit.files.values()]
    if request.flag("config") or "config" in expand:
        document["config"] = config_of(commit)
    if request.flag("cardData") or "cardData" in expand:
        document["cardData"] = card_of(commit)
    if "safetensors" in expand:
        document = {**_safetensors(commit), **document}
    return {key: value for key, value in document.items() if key in {"_id", "id", *expand}} if expand else document


def _safetensors(commit: Commit) -> dict[str, Any]:
    found = safetensors_of(commit)
    return {"safetensors": found} if found else {}


def describe(repo: Repo, commit: Commit) -> dict[str, Any]:
    """Return what both info and search say about a repo."""
    document: dict[str, Any] = {
        "_id": "",
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.id.split("/")[0],
        "sha": commit.sha,
        "lastModified": stamp(commit.date),
        "private": repo.private,
        "disabled": False,
        "gated": "manual" if repo.gated else False,
        "downloads": 0,
        "likes": 0,
        "trendingScore": 0,
        "tags": [],
        "pipeline_tag": "text-generation",
        "library_name": "mlx",
    }
    document |= repo.meta
    document["tags"] = tags_of(commit, document["tags"])
    return document


def sibling(file: HubFile, blobs: bool) -> dict[str, Any]:
    """Return a file as info lists it."""
    if not blobs:
        return {"rfilename": file.path}
    entry: dict[str, Any] = {"rfilename": file.path, "blobId": file.oid, "size": file.content.size}
    if file.lfs:
        entry["lfs"] = {"sha256": file.content.sha256, "size": file.content.size, "pointerSize": file.pointer_size}
    return entry


def tree_entries(commit: Commit, folder: str, recursive: bool, expand: bool) -> list[dict[str, Any]]:
    """Return the entries of a folder as the tree lists them: folders first met, first listed."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        parents = path[len(prefix) :].split("/")[:-1]
        for depth in range(1, len(parents) + 1 if recursive else min(len(parents), 1) + 1):
            name = prefix + "/".join(parents[:depth])
            if not name:  # of a path that begins with a slash, as a hostile one may
                continue
            oid = hashlib.sha1(f"{commit.sha} {name}".encode(), usedforsecurity=False).hexdigest()
            entries.setdefault(name, {"type": "directory", "oid": oid, "size": 0, "path": name})
        if parents and not recursive:
            continue
        entry: dict[str, Any] = {"type": "file", "oid": file.oid, "size": file.content.size, "path": path}
        if file.lfs:
            size = file.content.size
            entry["lfs"] = {"oid": file.content.sha256, "size": size, "pointerSize": file.pointer_size}
        if file.xet_hash:
            entry["xetHash"] = file.xet_hash
        entries[path] = entry
    if expand:
        last = {"id": commit.sha, "title": commit.title, "date": stamp(commit.date)}
        for entry in entries.values():
            entry["lastCommit"] = last
            if entry["type"] == "file":
                entry["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return list(entries.values())


def moved(request: Request, old: str, new: str) -> Reply:
    """Return the Hub's redirect to a repo's new name, for the same thing in it."""
    path = request.raw_path
    for prefix in (old, quote(old)):
        if path.startswith(prefix):
            path = quote(new) + path[len(prefix) :]
            break
    query = request.target.partition("?")[2]
    location = f"{path}?{query}" if query else path
    reply = Reply(307, {"Location": location})
    reply.text(f"Temporary Redirect. Redirecting to {location}", "text/plain; charset=utf-8")
    return reply
