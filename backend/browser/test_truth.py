"""The page is never wrong: what it shows when the stream or the server is gone, and how it comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from conftest import PATIENCE_MS, Open, Product, drawn_after
from fakes.hub_server import Fault, HubServer, mlx_model_files
from gateway import Gateway, Streams

expect.set_options(timeout=PATIENCE_MS)

MB = 1_000_000
MODEL = "mlx-community/Qwen3-0.6B-4bit"
LOST = "The live stream is interrupted."
GONE = "MLX Manager does not answer."
NO_ANSWER = r"net::ERR_"


@pytest.fixture
def gateway(product: Product) -> Iterator[Gateway]:
    with Gateway(product.url) as gateway:
        yield gateway


@pytest.fixture
def running(hub: HubServer, product: Product) -> str:
    """A download that goes on for a while; its id."""
    hub.add_model(MODEL, mlx_model_files(200 * MB))
    hub.fault(Fault.rate(2 * MB, shared=True), where="content")
    return product.api.download(MODEL)


def percent(page: Page) -> float:
    return float(page.locator(".percent").first.inner_text().removesuffix(" %"))


def gets_on(page: Page) -> None:
    before = page.locator(".percent").first.inner_text()
    expect(page.locator(".percent").first).not_to_have_text(before)


def test_a_server_that_is_killed_and_comes_back(product: Product, running: str, open_page: Open) -> None:
    page = open_page("/downloads", allowed=NO_ANSWER)
    gets_on(page)
    product.kill()
    expect(page.get_by_text(GONE)).to_be_visible()
    expect(page.get_by_text(re.compile(r"as of \d+.\d+.\d+"))).to_be_visible()
    expect(page).to_have_title(re.compile("^Not connected"))
    expect(page.get_by_role("button", name="Pause")).to_be_disabled()
    # Nothing is guessed: what it showed then, it shows still.
    shown = page.locator(".figures").first.inner_text()
    page.wait_for_timeout(1500)
    assert page.locator(".figures").first.inner_text() == shown
    product.start()
    expect(page.get_by_text(GONE)).to_be_hidden()
    expect(page.get_by_role("article", name=MODEL)).to_have_attribute("data-status", "downloading")
    gets_on(page)
    expect(page.get_by_role("article", name=MODEL)).to_contain_text("were here")


@pytest.mark.parametrize("how", [Streams.HOLD, Streams.CUT])
def test_a_stream_that_is_blocked_from_the_start(how: Streams, running: str, gateway: Gateway, open_page: Open) -> None:
    gateway.streams = how
    page = open_page("/downloads", url=gateway.url, allowed=NO_ANSWER)
    expect(page.get_by_text(LOST)).to_be_visible()
    gets_on(page)
    gateway.streams = Streams.PASS
    expect(page.get_by_text(LOST)).to_be_hidden()
    gets_on(page)


@pytest.mark.parametrize("how", [Streams.HOLD, Streams.CUT])
def test_a_stream_that_is_lost_on_the_way(how: Streams, running: str, gateway: Gateway, open_page: Open) -> None:
    page = open_page("/downloads", url=gateway.url, allowed=NO_ANSWER)
    gets_on(page)
    gateway.streams = how
    expect(page.get_by_text(LOST)).to_be_visible()
    gets_on(page)
    gateway.streams = Streams.PASS
    expect(page.get_by_text(LOST)).to_be_hidden()
    expect(page.locator(".connection")).to_have_text("Live")
    gets_on(page)
    if how is Streams.CUT:
        assert any(gateway.last_event_ids), "it went on from where it stood"


def test_what_happened_while_nobody_listened_is_told(
    hub: HubServer, product: Product, running: str, gateway: Gateway, open_page: Open
) -> None:
    page = open_page("/downloads", url=gateway.url, allowed=NO_ANSWER)
    gets_on(page)
    gateway.streams = Streams.CUT
    expect(page.get_by_text(LOST)).to_be_visible()
    product.api.move(running, "pause")
    other = "mlx-community/Other-1B-4bit"
    hub.add_model(other, mlx_model_files(MB))
    product.api.download(other)
    gateway.streams = Streams.PASS
    expect(page.get_by_role("article", name=MODEL)).to_contain_text("Paused")
    expect(page.get_by_role("article", name=other)).to_contain_text("Complete")


def test_an_answer_that_comes_late_takes_nothing_back(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(2 * MB))
    stalled = hub.fault(Fault.stall(after=MB), where="cdn")
    page = open_page("/discover")
    late = re.compile(r"/api/models/download/[^/]+/status$")
    held: list[tuple[Route, APIResponse]] = []
    page.route(late, lambda route: held.append((route, route.fetch())))
    with page.expect_request(late) as asked:
        page.locator(".hit").get_by_role("button", name=f"Download {MODEL}").click()
    stalled.wait_hit()
    page.get_by_role("link", name=re.compile("^Downloads")).click()
    row = page.get_by_role("article", name=MODEL)
    expect(row).to_have_attribute("data-status", "downloading")
    hub.clear_faults()
    expect(row).to_have_attribute("data-status", "completed")
    route, answer = held[0]
    assert answer.json()["status"] != "completed"
    route.fulfill(response=answer)
    drawn_after(page, asked.value)
    assert row.get_attribute("data-status") == "completed"


def test_a_refused_move_shows_what_is_true(product: Product, running: str, gateway: Gateway, open_page: Open) -> None:
    page = open_page("/downloads", url=gateway.url, allowed=NO_ANSWER + "|409")
    gets_on(page)
    # This page has not heard yet that somebody else paused it.
    gateway.streams = Streams.HOLD
    product.api.move(running, "pause")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert").filter(has_text="cannot be asked to pause")).to_be_visible()
    expect(page.get_by_role("article", name=MODEL)).to_contain_text("All that was received is kept.")
