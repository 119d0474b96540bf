"""For everyone: by keyboard alone, enlarged, on a small phone; and the door of a server on the network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from conftest import PATIENCE_MS, PICTURES, WIDE, Open, Product, too_wide
from fakes.hub_server import HubServer, mlx_model_files
from mlx_manager.domain.states import Status
from mlx_manager.services.access import read_token

expect.set_options(timeout=PATIENCE_MS)

MB = 1_000_000
MODEL = "mlx-community/Qwen3-0.6B-4bit"
GATED = "mlx-community/gemma-3-27b-it-qat-4bit"
PHONE = {"width": 320, "height": 640}
ENLARGED = {"width": 640, "height": 430}
"""What is left of a window of 1280 by 860 at 200 %."""
CUT_OFF = """() => [...document.querySelectorAll("main :is(a, button, select, input, td)")]
  .filter((one) => !one.closest(".filters"))
  .filter((one) => one.getBoundingClientRect().right > one.closest(".row, .panel, main").getBoundingClientRect().right)
  .map((one) => one.outerHTML)"""
SHOWS_FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  const ringed = [one, one.nextElementSibling].some((it) => it && getComputedStyle(it).outlineStyle !== "none");
  return one !== document.body && ringed && box.bottom > 0 && box.top < innerHeight;
}"""


def on_foot(page: Page, until: str, *, most: int = 60) -> None:
    """Press Tab until that has the focus; on each step it can be seen where one is."""
    wanted = page.locator(until).first
    wanted.wait_for()
    for _ in range(most):
        page.keyboard.press("Tab")
        assert page.evaluate(SHOWS_FOCUS), page.evaluate("document.activeElement.outerHTML")
        if wanted.evaluate("(one) => one === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {until}")


def looked_at(page: Page, name: str) -> None:
    """By axe too, but not enlarged: what it knows of that are the same elements as on the phone."""
    if "enlarged" not in name:
        found = Axe().run(page)
        assert found.violations_count == 0, f"{name}\n{found.generate_report()}"
    assert not too_wide(page), name
    assert page.evaluate(CUT_OFF) == [], name
    page.screenshot(path=PICTURES / f"view-{name}.png")


def test_the_keyboard_does_everything(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(2 * MB))
    page = open_page("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    on_foot(page, ".starter .button")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name=f"On this machine {MODEL}").first).to_be_visible()
    page.reload()
    on_foot(page, "nav a[href='/library']")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Library")).to_be_focused()
    on_foot(page, ".book .unfold")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Copy In the terminal")).to_be_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    expect(dialog).to_contain_text("Frees")
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name="Delete")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No model is here yet.")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_the_views_of_every_day_do_not_show(theme: str, hub: HubServer, product: Product, open_page: Open) -> None:
    """The greeting, a model, its gate, and what is asked before a deletion: nothing keeps anybody out."""
    hub.add_model(MODEL, mlx_model_files(2 * MB))
    hub.add_model("mlx-community/Qwen3-0.6B-8bit", mlx_model_files(2 * MB, bits=8))
    hub.add_model(GATED, mlx_model_files(MB), gated=True)
    page = open_page("/", theme=theme)
    for size, name in ((WIDE, "wide"), (ENLARGED, "enlarged"), (PHONE, "phone")):
        page.set_viewport_size({"width": size["width"], "height": size["height"]})
        page.goto(product.url)
        expect(page.locator(".starter .button").first).to_be_visible()
        expect(page.locator(".hit")).to_have_count(3)
        looked_at(page, f"greeting-{name}-{theme}")
        page.goto(f"{product.url}/models/{MODEL}")
        expect(page.frame_locator("iframe.card").get_by_text("A test model")).to_be_visible()
        page.get_by_role("button", name=f"Files: {MODEL}").click()
        expect(page.get_by_role("button", name=re.compile("^Download 2"))).to_be_visible()
        looked_at(page, f"model-{name}-{theme}")
        page.goto(f"{product.url}/models/{GATED}")
        expect(page.locator(".gate")).to_be_visible()
        looked_at(page, f"gate-{name}-{theme}")
    product.api.wait(product.api.download(MODEL), Status.COMPLETED)
    for size, name in ((WIDE, "wide"), (PHONE, "phone")):
        page.set_viewport_size({"width": size["width"], "height": size["height"]})
        page.goto(f"{product.url}/library")
        page.get_by_role("button", name=f"How to use it, commits: {MODEL}").click()
        looked_at(page, f"use-{name}-{theme}")
        page.get_by_role("button", name=f"Delete {MODEL}").click()
        expect(page.get_by_role("dialog")).to_contain_text("Frees")
        looked_at(page, f"delete-{name}-{theme}")


@pytest.mark.settings(MLX_MANAGER_MAX_DOWNLOADS="1")
def test_enlarged_and_on_a_small_phone_nothing_is_lost(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(2 * MB))
    product.api.wait(product.api.download(MODEL), Status.COMPLETED)
    page = open_page("/")
    for size in (ENLARGED, PHONE):
        page.set_viewport_size({"width": size["width"], "height": size["height"]})
        for view in ("Discover", "Downloads", "Library", "Settings"):
            page.get_by_role("navigation").get_by_role("link", name=view).click()
            expect(page.get_by_role("heading", level=1, name=view)).to_be_visible()
            expect(page.locator(".hit, .row, .panel").first).to_be_visible()
            assert not too_wide(page), f"{view} at {size}"


# --- the door ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def network(hub: HubServer, tmp_path: Path) -> Iterator[Product]:
    """A server that listens for others too."""
    product = Product(tmp_path / "network", hub.url, MLX_MANAGER_HOST="0.0.0.0")
    product.start()
    yield product
    product.stop()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_door_opens_for_the_access_token(theme: str, hub: HubServer, network: Product, browser: Browser) -> None:
    hub.add_model(MODEL, mlx_model_files(MB))
    token = read_token(network.home / "data")
    assert token is not None
    context = browser.new_context(viewport=PHONE, color_scheme="dark" if theme == "dark" else "light")
    page = context.new_page()
    page.goto(network.url)
    field = page.get_by_label("Access token")
    expect(field).to_be_focused()
    assert page.evaluate("getComputedStyle(document.querySelector('main')).borderRadius") == "16px", "it has its style"
    looked_at(page, f"door-{theme}")
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("That is not the access token")
    looked_at(page, f"door-wrong-{theme}")
    field.fill(token)
    page.keyboard.press("Enter")
    expect(page.locator(".connection")).to_have_text("Live")
    expect(page.get_by_role("article", name=MODEL)).to_be_visible()
    assert token not in page.url + page.content()
    # By the address that `mlx-manager token` shows; and a stranger is still one.
    context.clear_cookies()
    page.goto(f"{network.url}/access?token={token}")
    expect(page.locator(".connection")).to_have_text("Live")
    assert token not in page.url
    context.clear_cookies()
    page.goto(network.url)
    expect(field).to_be_visible()
    context.close()
