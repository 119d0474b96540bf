"""What can be set from outside: one table of names, defaults and help, read once. The only reader of the environment.

``Settings.load(os.environ)`` is called by the command line and by tests; everybody else gets values passed in. The
variables of Hugging Face mean here what they mean to `hf`; tokens are left to huggingface_hub, which reads HF_TOKEN and
the token file itself.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from mlx_manager.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked values; `SETTINGS` says what each one is. Seconds end in ``_s``."""

    home: Path
    host: str
    port: int
    names: tuple[str, ...]
    access: str
    max_streams: int
    max_downloads: int
    connections: int
    total_connections: int
    bandwidth: int
    mirrors: tuple[str, ...]
    engine: str
    size_check_s: float
    hub_timeout_s: float
    stall_s: float
    log_level: str
    log_format: str
    hf_endpoint: str
    hf_home: Path
    hf_hub_cache: Path
    hf_hub_offline: bool
    hf_hub_disable_xet: bool
    hf_hub_disable_telemetry: bool

    @classmethod
    def load(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read every variable of the table from ``env`` (the process's own when None); a blank one counts as not set.

        Raises InvalidSetting, which names the variable.
        """
        env = os.environ if env is None else env
        return cls(**{setting.field: setting.read(env) for setting in SETTINGS})

    @property
    def log_file(self) -> Path:
        return self.home / "logs" / "mlx-manager.log"

    @property
    def database(self) -> Path:
        return self.home / "mlx-manager.db"

    @property
    def hub_memory(self) -> Path:
        """What the Hub has said, for when it does not answer."""
        return self.home / "hub-memory"

    @property
    def library_memory(self) -> Path:
        """What was read of the cache, for the next look at it."""
        return self.home / "library.json"

    @property
    def xet_folder(self) -> Path:
        """What hf_xet writes for itself while it fetches."""
        return self.home / "xet"

    @property
    def is_loopback(self) -> bool:
        """Nobody but this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def needs_token(self) -> bool:
        """Strangers may come: from the network, or through whatever serves this server under other names."""
        return self.access == "token" or not self.is_loopback or bool(self.names)


@dataclass(frozen=True, slots=True)
class Setting:
    """``default`` is what the environment would have to say for it; ``shown`` says it for people where that differs."""

    field: str
    variable: str
    default: str | Callable[[Mapping[str, str]], str]
    help: str
    parse: Callable[[str], Any]
    shown: str = ""

    @property
    def default_text(self) -> str:
        """The default as the README tells it."""
        return self.shown or str(self.default)

    def read(self, env: Mapping[str, str]) -> Any:
        text = env.get(self.variable, "").strip()
        if not text:
            text = self.default(env) if callable(self.default) else self.default
        try:
            return self.parse(text)
        except ValueError as error:
            # A URL may carry a password.
            said = re.sub(r"//[^/@]*@", "//…@", text)
            raise InvalidSetting(
                f"{self.variable} is {said!r}, but it must be {error}.",
                advice=f"Set {self.variable} to a right value, or unset it for the default ({self.default_text}).",
            ) from None


# Parsers: each raises ValueError with the words that follow "it must be".


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number of seconds from {low:g} to {high:g}")
        return value

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        for word in words:
            if text.lower() == word.lower():
                return word
        raise ValueError(f"one of {', '.join(words)}")

    return parse


def _folder(text: str) -> Path:
    if "\0" in text:
        raise ValueError("the path of a folder")
    return Path(os.path.expandvars(text)).expanduser().absolute()


def _host(text: str) -> str:
    if any(char in text for char in "/@ \t") or text.startswith("["):
        raise ValueError("a host name or an IP address, without a scheme or a port")
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for name in names:
        if _host(name) != name or ":" in name or "*" in name:
            raise ValueError("names such as models.example.com, parted by commas, without a scheme or a port")
    return names


def _endpoint(text: str) -> str:
    try:
        url = urlsplit(text)
        right = (
            url.scheme in ("http", "https")
            and bool(url.hostname)
            and not (url.query or url.fragment or "@" in url.netloc)
        )
    except ValueError:
        right = False
    if not right:
        raise ValueError("a URL such as https://huggingface.co, without user and password")
    return text.rstrip("/")


def _endpoints(text: str) -> tuple[str, ...]:
    return tuple(_endpoint(part.strip()) for part in text.split(",") if part.strip())


def _flag(text: str) -> bool:
    # huggingface_hub's own rule: these four are yes, anything else is no.
    return text.upper() in ("1", "ON", "YES", "TRUE")


# Defaults that hang on other variables, as huggingface_hub 2.4 works them out.


def _hf_home(env: Mapping[str, str]) -> str:
    return str(Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")


def _hf_hub_cache(env: Mapping[str, str]) -> str:
    return env.get("HUGGINGFACE_HUB_CACHE") or str(Path(env.get("HF_HOME", "").strip() or _hf_home(env)) / "hub")


def _offline(env: Mapping[str, str]) -> str:
    return env.get("TRANSFORMERS_OFFLINE") or "0"


def _home(env: Mapping[str, str]) -> str:
    return platformdirs.user_data_dir("mlx-manager", appauthor=False)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "home",
        "MLX_MANAGER_HOME",
        _home,
        "MLX Manager's own folder: its database, its log, the lock of the running server. No models.",
        _folder,
        shown="~/.local/share/mlx-manager; on macOS ~/Library/Application Support/mlx-manager",
    ),
    Setting(
        "host",
        "MLX_MANAGER_HOST",
        "127.0.0.1",
        "Address to listen on; beyond this machine (0.0.0.0, for example) an access token is needed.",
        _host,
    ),
    Setting("port", "MLX_MANAGER_PORT", "10242", "Port to listen on; 0 takes any free one.", _whole(0, 65535)),
    Setting(
        "names",
        "MLX_MANAGER_NAMES",
        "",
        "Other names that it is reached by, parted by commas: behind a reverse proxy, or in a network's DNS.",
        _names,
        shown="none",
    ),
    Setting(
        "access",
        "MLX_MANAGER_ACCESS",
        "auto",
        "auto: an access token is needed where others than this machine can come; token: always.",
        _one_of("auto", "token"),
    ),
    Setting(
        "max_streams",
        "MLX_MANAGER_MAX_STREAMS",
        "2000",
        "Most event streams open at once; from one address of the network, 64 of them.",
        _whole(1, 100_000),
    ),
    Setting("max_downloads", "MLX_MANAGER_MAX_DOWNLOADS", "3", "Downloads at the same time.", _whole(1, 64)),
    Setting("connections", "MLX_MANAGER_CONNECTIONS", "32", "Most connections of one download.", _whole(1, 64)),
    Setting(
        "total_connections",
        "MLX_MANAGER_TOTAL_CONNECTIONS",
        "64",
        "Most connections of all downloads together, shared evenly.",
        _whole(1, 256),
    ),
    Setting(
        "bandwidth",
        "MLX_MANAGER_BANDWIDTH",
        "0",
        "Bytes per second of all downloads together; 0 for no cap.",
        _whole(0, 1_000_000_000_000),
    ),
    Setting(
        "mirrors",
        "MLX_MANAGER_MIRRORS",
        "",
        "Other places that serve the Hub's files, parted by commas: asked in this order when the Hub's bytes fail.",
        _endpoints,
        shown="none",
    ),
    Setting(
        "engine",
        "MLX_MANAGER_ENGINE",
        "auto",
        "auto: ranges over HTTP, and Xet for files that cannot be had so; xet: Xet first; http: no Xet.",
        _one_of("auto", "http", "xet"),
    ),
    Setting(
        "size_check_s",
        "MLX_MANAGER_SIZE_CHECK_S",
        "30",
        "Seconds to wait for the Hub's list of files before the size is estimated from the model's name.",
        _seconds(0.1, 3600),
    ),
    Setting(
        "hub_timeout_s",
        "MLX_MANAGER_HUB_TIMEOUT_S",
        "10",
        "Seconds to wait for a connection to the Hub, and for each next part of its answer.",
        _seconds(0.1, 600),
    ),
    Setting(
        "stall_s",
        "MLX_MANAGER_STALL_S",
        "10",
        "Seconds after which a connection without a useful rate is replaced by a new one.",
        _seconds(0.1, 3600),
    ),
    Setting(
        "log_level",
        "MLX_MANAGER_LOG_LEVEL",
        "INFO",
        "INFO tells the story of each download, DEBUG has each request.",
        _one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    ),
    Setting(
        "log_format", "MLX_MANAGER_LOG_FORMAT", "text", "text for people, json for programs.", _one_of("text", "json")
    ),
    Setting(
        "hf_endpoint", "HF_ENDPOINT", "https://huggingface.co", "The Hub to ask; a mirror, for example.", _endpoint
    ),
    Setting(
        "hf_home",
        "HF_HOME",
        _hf_home,
        "Hugging Face's own folder: the token file, and the cache unless HF_HUB_CACHE says otherwise.",
        _folder,
        shown="~/.cache/huggingface",
    ),
    Setting(
        "hf_hub_cache",
        "HF_HUB_CACHE",
        _hf_hub_cache,
        "Where models are kept: the standard cache that mlx-lm, transformers and hf share.",
        _folder,
        shown="~/.cache/huggingface/hub",
    ),
    Setting("hf_hub_offline", "HF_HUB_OFFLINE", _offline, "1: never ask the Hub.", _flag, shown="0"),
    Setting("hf_hub_disable_xet", "HF_HUB_DISABLE_XET", "0", "1: never use Xet.", _flag),
    # The other way round than with `hf`: nothing is reported unless the person says so.
    Setting("hf_hub_disable_telemetry", "HF_HUB_DISABLE_TELEMETRY", "1", "0: hf_xet may report how it went.", _flag),
)
