"""The check-up: settings in, checks out. Introduces the rooms to one another as the wiring does, and starts nothing."""

from __future__ import annotations

import platform
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from urllib.parse import urlsplit

import httpx2
import psutil

from mlx_manager import __version__
from mlx_manager.domain.diagnosis import Finding, skipped, wrong
from mlx_manager.domain.hub_checks import Way, judge_way
from mlx_manager.domain.machine_checks import (
    ServerFacts,
    judge_cache,
    judge_data_folder,
    judge_database,
    judge_disk,
    judge_leftovers,
    judge_server,
)
from mlx_manager.errors import HubError
from mlx_manager.services.data_dir import running_server
from mlx_manager.services.doctor import (
    Check,
    HubAnswers,
    HubWay,
    Pending,
    examine,
    look_at_cache,
    look_at_disk,
    look_at_folder,
)
from mlx_manager.services.hf_cache import HfCache
from mlx_manager.services.hf_client import HubClient
from mlx_manager.settings import Settings
from mlx_manager.storage.checkup import examine_ledger

HERE, THERE = "This machine", "The Hub"
ON_DISK_S = 10.0
HUB_S = 5.0
"""Or less, where MLX_MANAGER_HUB_TIMEOUT_S says so: a person waits here."""
SERVER_S = 6.0
"""A `pull` that nobody joined so far has the web framework to import first, which takes seconds on a busy machine."""
USER_AGENT = f"mlx-manager/{__version__}"


def check_up(settings: Settings) -> Iterator[tuple[str, Pending]]:
    """Every check in its order, with its heading. All of them are at work already. Nothing is changed; what is tried in
    a folder is removed at once."""
    with ExitStack() as ends:
        here, there = list(_here(settings)), list(_there(settings, ends))
        for pending in examine([*here, *there]):
            yield HERE if pending.check in here else THERE, pending


def _here(settings: Settings) -> Iterator[Check]:
    ledger = cache(lambda: examine_ledger(settings.database))
    hub_cache = HfCache(settings.hf_hub_cache)

    def disk() -> Finding:
        return judge_disk(look_at_disk(settings.hf_hub_cache, ledger().owed, ledger().owing))

    def leftovers() -> Finding:
        database = ledger().database
        if database.exists and database.schema != database.newest:
            return skipped("the next start brings the database up to date; only then it tells what is wanted")
        return judge_leftovers(hub_cache.leftovers(ledger().contents))

    yield Check("server", "Server", lambda: judge_server(_server(settings), __version__), SERVER_S)
    yield Check("data_folder", "Data folder", lambda: judge_data_folder(look_at_folder(settings.home)), ON_DISK_S)
    yield Check("database", "Database", lambda: judge_database(ledger().database), ON_DISK_S)
    yield Check("cache", "Cache", lambda: judge_cache(look_at_cache(settings.hf_hub_cache)), ON_DISK_S)
    yield Check("disk", "Disk", disk, ON_DISK_S)
    # Of a ledger that cannot be read nobody knows what it wants: all would look left over.
    yield Check("leftovers", "Leftovers", leftovers, ON_DISK_S, after=("database",))


def _server(settings: Settings) -> ServerFacts:
    announced = running_server(settings.home)
    if announced is None:
        return ServerFacts()
    answers, problem = False, None
    try:
        # It is on this machine: a proxy of the environment has no business here.
        health = httpx2.get(f"{announced.url}/health", timeout=SERVER_S - 1, trust_env=False).json()
        # Of a server that was killed the port may be somebody else's by now.
        answers = isinstance(health, dict) and health.get("pid") == announced.pid
        problem = health.get("problem") if answers else None
    except (httpx2.HTTPError, ValueError):
        answers = False
    return ServerFacts(
        announced.url,
        announced.pid,
        announced.version,
        psutil.pid_exists(announced.pid),
        answers,
        problem["detail"] if problem else None,
        problem["advice"] if problem else "",
    )


def _there(settings: Settings, ends: ExitStack) -> Iterator[Check]:
    yield Check("way", "Asked at", lambda: judge_way(_way(settings)), SERVER_S)
    if settings.hf_hub_offline:
        return
    hub = _hub(settings)
    try:
        trust = hub.trusted()
    except HubError as error:
        unreadable = wrong(error.detail.rstrip("."), error.advice)
        yield Check("certificates", "Certificates", lambda: unreadable, HUB_S)
        return
    answers = HubAnswers(
        settings.hf_endpoint,
        trust=trust,
        timeout_s=_patience_s(settings),
        token=hub.token,
        user_agent=USER_AGENT,
        platform=platform.system(),
    )
    ends.callback(answers.close)
    proxy = hub.proxy_for(settings.hf_endpoint)
    steps = HubWay(settings.hf_endpoint, proxy, trust, _patience_s(settings))
    off = settings.hf_hub_disable_xet or settings.engine == "http"
    # A little longer than their own limits, which can say what they waited for.
    bound_s = _patience_s(settings) + 1
    yield Check("name", "Name", steps.name, bound_s, timed=True)
    yield Check("connection", "Connection", steps.connection, 3 * bound_s, after=("name",), timed=True)
    yield Check("tls", "TLS", steps.tls, bound_s, after=("connection",), timed=True)
    # Where there is no TLS by design the API is asked all the same, so what it needs is the connection.
    secured = ("tls",) if urlsplit(settings.hf_endpoint).scheme == "https" and proxy is None else ("connection",)
    yield Check("api", "API", answers.api, bound_s, after=secured, timed=True)
    yield Check("clock", "Clock", answers.clock, bound_s, after=("api",))
    yield Check("token", "Token", answers.whoami, 2 * bound_s, after=("api",), timed=True)
    yield Check("files", "Files", answers.file_byte, 3 * bound_s, after=("api",), timed=True)
    xet_first = settings.engine == "xet"
    yield Check("xet", "Xet", lambda: answers.xet(off=off, first=xet_first), 2 * bound_s, after=("files",), timed=True)
    for number, mirror in enumerate(settings.mirrors, start=1):
        title = "Mirror" if len(settings.mirrors) == 1 else f"Mirror {number}"
        yield Check(f"mirror_{number}", title, _asking(answers, mirror), bound_s, timed=True)


def _patience_s(settings: Settings) -> float:
    return min(HUB_S, settings.hub_timeout_s)


def _asking(answers: HubAnswers, mirror: str) -> Callable[[], Finding]:
    return lambda: answers.mirror(mirror)


def _way(settings: Settings) -> Way:
    proxy = _hub(settings).proxy_for(settings.hf_endpoint)
    believed = ssl.get_default_verify_paths()
    return Way(
        endpoint=settings.hf_endpoint,
        offline=settings.hf_hub_offline,
        proxy=None if proxy is None else _without_password(proxy),
        mirrors=settings.mirrors,
        certificates=believed.cafile if believed.cafile != believed.openssl_cafile else None,
    )


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _hub(settings: Settings) -> HubClient:
    return HubClient(
        settings.hf_endpoint, timeout_s=_patience_s(settings), offline=settings.hf_hub_offline, user_agent=USER_AGENT
    )
