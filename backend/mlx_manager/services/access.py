"""Who may use a server that others can reach: whoever knows the access token in the data folder.

The token is 256 random bits in ``<home>/access-token``, a file that its owner alone can read. It is what a person
copies. What travels with each request of a browser or of the command line is a *pass* made from it: a time of expiry
and a keyed hash of that time. A pass that leaks ends by itself, cannot be turned back into the token, and is worth
nothing once the token is renewed.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from mlx_manager.errors import AccessTokenUnusable, DataDirNotWritable
from mlx_manager.services import drafts

logger = logging.getLogger(__name__)

FILE_NAME = "access-token"
SHORTEST = 32
"""Characters of a token that somebody chose; ours have 43."""
LONGEST_PASS_S = 30 * 24 * 3600.0
FAILURES, WINDOW_S = 10, 60.0
_CLIENTS = 1024


def read_token(home: Path) -> str | None:
    """The access token of a data folder; None while there is none. Raises AccessTokenUnusable."""
    file = home / FILE_NAME
    try:
        token = file.read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        token = ""
    except OSError as error:
        raise AccessTokenUnusable(f"The access token {file} cannot be read: {error.strerror or error}.") from error
    if len(token) < SHORTEST or not token.isprintable() or set(token) & set(" ;,\"'"):
        # Never quoted: it may be the better part of a secret.
        raise AccessTokenUnusable(
            f"{file} holds no access token: {SHORTEST} characters and more, without spaces, quotes and separators."
        )
    return token


def make_token(home: Path, *, renew: bool = False) -> str:
    """The access token; a new one if there is none, or in any case with ``renew``. Raises AccessTokenUnusable and
    DataDirNotWritable."""
    if not renew and (known := read_token(home)) is not None:
        return known
    file = home / FILE_NAME
    draft = drafts.draft_of(file)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Of a dead process that had our number: it is made anew, so that nobody else can have it open.
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
            out.write(secrets.token_urlsafe(32) + "\n")
            out.flush()
            os.fsync(out.fileno())
        try:
            if renew:
                draft.replace(file)
            else:
                # Unlike a rename this does not replace one that somebody else made in the meantime.
                file.hardlink_to(draft)
        except FileExistsError:
            logger.debug("Another process has just made the access token; that one holds.")
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise DataDirNotWritable(f"The access token {file} cannot be written: {error.strerror or error}.") from error
    token = read_token(home)
    if token is None:
        raise AccessTokenUnusable(f"The access token {file} was removed as soon as it was made.")
    return token


def make_pass(token: str, lifetime_s: float, *, now: float | None = None) -> str:
    """Proof that somebody knew ``token``, good for ``lifetime_s`` seconds (`LONGEST_PASS_S` at most)."""
    expires = str(int((time.time() if now is None else now) + lifetime_s))
    return f"{expires}.{_mac(token, expires)}"


def _mac(token: str, expires: str) -> str:
    return hmac.new(token.encode(), b"mlx-manager pass until " + expires.encode(), sha256).hexdigest()


class Access:
    """The token as a running server sees it: always the one in the file, so that `renew` needs no server to act.

    ``hide`` is told every token, so that none gets into the log. Belongs to one event loop.
    """

    def __init__(self, home: Path, *, hide: Callable[[str], None] = lambda token: None) -> None:
        self._home = home
        self._hide = hide
        self._token: str | None = None
        self._state: tuple[int, ...] | None = None
        self._on_renewed: list[Callable[[], None]] = []

    def start(self) -> None:
        """Make the token if there is none, and see to it that nobody else can read it. Blocks for a moment. Raises
        AccessTokenUnusable and DataDirNotWritable."""
        make_token(self._home)
        file = self._home / FILE_NAME
        try:
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)
                logger.warning("%s could be read by other users of this machine: renew it (mlx-manager token).", file)
        except OSError as error:
            raise AccessTokenUnusable(f"The access token {file} cannot be kept private: {error.strerror}.") from error
        self._look()

    def on_renewed(self, act: Callable[[], None]) -> None:
        """Have ``act`` called when the token is another one, or none: who came in with the old one must go."""
        self._on_renewed.append(act)

    def admits(self, shown: str, *, now: float | None = None) -> bool:
        """Whether ``shown`` is the token, or a pass that is still good. Takes the same time whatever is wrong."""
        token = self._look()
        if token is None:
            return False
        expires, _, mac = shown.partition(".")
        # Both are always compared, and as bytes: text beyond ASCII cannot be.
        is_token = hmac.compare_digest(shown.encode(), token.encode())
        is_pass = hmac.compare_digest(mac.encode(), _mac(token, expires).encode())
        return is_token or (is_pass and self._is_good(expires, time.time() if now is None else now))

    def make_pass(self, lifetime_s: float) -> str:
        token = self._look()
        if token is None:
            raise AccessTokenUnusable(f"{self._home / FILE_NAME} is gone.")
        return make_pass(token, lifetime_s)

    @property
    def cookie(self) -> str:
        """A name for the browser's cookie. Browsers tell hosts apart but not ports, so each server has its own; it
        tells nothing of the token."""
        return f"mlx_manager_{sha256(f'cookie {self._look()}'.encode()).hexdigest()[:12]}"

    @staticmethod
    def _is_good(expires: str, now: float) -> bool:
        # What was signed is ours; that it is a number is only for the type.
        return expires.isdecimal() and now < int(expires) <= now + LONGEST_PASS_S + 60

    def _look(self) -> str | None:
        """The token of the file, read anew when it is another file. Costs microseconds."""
        state = self._file_state()
        if state != self._state:
            before, self._state = self._token, state
            try:
                self._token = read_token(self._home)
            except AccessTokenUnusable as error:
                logger.error("%s %s", error.detail, error.advice)
                self._token = None
            if self._token is not None:
                self._hide(self._token)
            if before is not None and before != self._token:
                logger.info("The access token is another one: whoever came with the old one has to sign in again.")
                for act in self._on_renewed:
                    act()
        return self._token

    def _file_state(self) -> tuple[int, ...] | None:
        try:
            found = (self._home / FILE_NAME).stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Failures:
    """Wrong tokens, counted by where they came from: ``allowed`` in ``window_s`` seconds, then that place has to wait.

    256 bits cannot be guessed at any rate; this keeps guessing from costing us anything, and makes it seen. So a right
    token is let in whatever else comes from the same address. At most ``clients`` places are remembered.
    """

    def __init__(
        self,
        *,
        allowed: int = FAILURES,
        window_s: float = WINDOW_S,
        clients: int = _CLIENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = allowed
        self._window_s = window_s
        self._most = clients
        self._clock = clock
        # (when the window began, failures in it), oldest window first.
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, client: str) -> float:
        """One more failure; the seconds that this place has to wait before it may fail again, 0 for not at all."""
        now = self._clock()
        begun, count = self._seen.get(client, (now, 0))
        if now - begun >= self._window_s:
            begun, count = now, 0
            self._seen.pop(client, None)
        count += 1
        self._seen[client] = (begun, count)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        if count == 1:
            logger.warning("Somebody at %s showed a wrong access token.", client)
        elif count == self._allowed + 1:
            logger.warning("%s showed more than %d wrong access tokens and has to wait.", client, self._allowed)
        return 0.0 if count <= self._allowed else begun + self._window_s - now

    def __len__(self) -> int:
        return len(self._seen)


def place_of(address: str | None) -> str:
    """Where a client is, as far as limits go: its address, and of IPv6 the network (/64) that one machine may have all
    to itself. Of no address (a socket without one): ``here``."""
    if address is None:
        return "here"
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        if not ip.is_loopback:
            return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def is_here(place: str) -> bool:
    """Whether a `place_of` is this machine."""
    return place in ("here", "::1") or place.startswith("127.")
