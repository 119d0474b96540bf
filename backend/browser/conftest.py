"""A real browser before the real server before the test hub. `make browser` runs these; `make test` does not.

Every page that a test opens ends in a picture below .cache/browser/, and must have kept its console free of errors.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from api_client import Api, ServerProcess
from fakes.hub_server import HubServer

PICTURES = Path(__file__).resolve().parents[2] / ".cache" / "browser"
WIDE = {"width": 1280, "height": 860}
PATIENCE_MS = 20_000
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def find_browser() -> str:
    """The path of a Chromium; ends the run with what to do where there is none."""
    chosen = os.environ.get("MLX_MANAGER_CHROMIUM")
    found = chosen or next((path for path in map(shutil.which, NAMES) if path), None)
    found = found or next((path for path in PLACES if Path(path).exists()), None)
    if not found or not Path(found).exists():
        pytest.exit(
            "These tests need Chromium or Chrome. Debian and Ubuntu: `apt-get install chromium`. macOS: "
            "`brew install --cask chromium`. Elsewhere name its program in MLX_MANAGER_CHROMIUM.",
            returncode=2,
        )
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    # As root it starts only without its sandbox; the pages are our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    path = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub


class Product:
    """The server in a process of its own, on the same port in each of its lives."""

    def __init__(self, home: Path, hub_url: str, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._start: Callable[[], ServerProcess] = lambda: ServerProcess(
            home, hub_url, **{"MLX_MANAGER_PORT": str(port), **settings}
        )
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self.api = Api(self.url)
        self._process: ServerProcess | None = None

    @property
    def cache(self) -> Path:
        return self.home / "hf" / "hub"

    def start(self) -> None:
        self._process = self._start()
        self._process.api()

    def kill(self) -> None:
        """With SIGKILL: it can say good-bye to nobody."""
        assert self._process is not None
        self._process.__exit__()
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.kill()


@pytest.fixture
def product(hub: HubServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Product]:
    """A running server. ``pytest.mark.settings(NAME=value)`` sets variables of its environment."""
    marked = request.node.get_closest_marker("settings")
    product = Product(tmp_path / "home", hub.url, **(marked.kwargs if marked else {}))
    product.start()
    yield product
    product.stop()


Open = Callable[..., Page]


def drawn_after(page: Page, request: Request) -> None:
    """The answer to that request has come, and the page has drawn what follows from it."""
    answer = request.response()
    assert answer is not None
    answer.finished()
    page.evaluate("new Promise((go) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(go))))")


def too_wide(page: Page) -> bool:
    """Something has to be scrolled aside. The window is wider than the page: it keeps room for a scrollbar."""
    return bool(
        page.evaluate("(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth)(document.documentElement)")
    )


@pytest.fixture
def open_page(browser: Browser, product: Product, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a page: ``open_page("/downloads", theme="dark", size=…, url=…)``. ``allowed``: a pattern for what the
    console may say because it belongs to the test, such as that a killed server does not answer."""
    opened: list[Page] = []
    said: list[str] = []

    def open_page(
        path: str = "/",
        *,
        theme: str = "light",
        size: dict[str, int] = WIDE,
        url: str | None = None,
        allowed: str = "$^",
    ) -> Page:
        def listen(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not re.search(allowed, message.text):
                said.append(f"{message.type}: {message.text} ({message.location})")

        context = browser.new_context(
            viewport=size, color_scheme=theme, permissions=["clipboard-read", "clipboard-write"]
        )
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", listen)
        page.on("pageerror", lambda error: said.append(f"uncaught: {error}"))
        page.goto((url or product.url) + path)
        opened.append(page)
        return page

    yield open_page
    PICTURES.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(opened):
        name = re.sub(r"\W+", "-", request.node.name).strip("-")
        page.screenshot(path=PICTURES / f"{name}{f'-{number + 1}' if number else ''}.png")
        page.context.close()
    assert not said, "\n".join(said)
