"""Each view in both themes and widths: looked at by axe, and kept as a picture; and what people do in them."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from conftest import PATIENCE_MS, PICTURES, WIDE, Open, Product, too_wide
from fakes.hub_server import Fault, HubServer, mlx_model_files
from mlx_manager.domain.states import Status

expect.set_options(timeout=PATIENCE_MS)

MB = 1_000_000
NARROW = {"width": 390, "height": 844}
VIEWS = ["discover", "downloads", "library", "settings"]
LONG = f"evil/{'w' * 200}"
HOSTILE_REF = "<img src=x onerror=alert(1)>"


@pytest.fixture
def busy(hub: HubServer, product: Product) -> None:
    """One download of each kind: complete, on its way, paused, failed, in line."""
    names = ["Done-1B-4bit", "Going-7B-4bit", "Resting-3B-8bit", "Gated-70B-4bit"]
    for name in names:
        hub.add_model(f"mlx-community/{name}", mlx_model_files(MB if "Done" in name else 90 * MB, shards=2))
    hub.add_model("mlx-community/Gated-70B-4bit", mlx_model_files(MB), gated=True)
    product.api.wait(product.api.download("mlx-community/Done-1B-4bit"), Status.COMPLETED)
    hub.fault(Fault.rate(2 * MB, shared=True), where="cdn")
    product.api.download("mlx-community/Going-7B-4bit")
    resting = product.api.download("mlx-community/Resting-3B-8bit")
    product.api.wait(resting, Status.DOWNLOADING)
    product.api.move(resting, "pause")
    product.api.wait(product.api.download("mlx-community/Gated-70B-4bit"), Status.FAILED)
    repo = product.cache / f"models--{LONG.replace('/', '--')}"
    (repo / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (repo / "snapshots" / ("a" * 40) / "model.safetensors").write_bytes(b"x" * 1000)
    (repo / "refs").mkdir()
    (repo / "refs" / HOSTILE_REF).write_text("a" * 40)
    (repo / "refs" / "\u202egnp.eruces").write_text("a" * 40)


def settled(page: Page, view: str) -> None:
    """The view shows what it has to show."""
    shown = {
        "discover": page.locator(".hit").first,
        "downloads": page.get_by_role("article", name="Going-7B-4bit").get_by_text("Downloading"),
        "library": page.get_by_role("article", name="Done-1B-4bit"),
        "settings": page.get_by_text("Free on that disk"),
    }
    expect(shown[view]).to_be_visible()


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_view_keeps_anybody_out(theme: str, open_page: Open) -> None:
    """No violation of axe's rules in any view, in both themes, wide and narrow; nothing has to be scrolled aside."""
    axe = Axe()
    page = open_page("/", theme=theme)
    for view in VIEWS:
        page.get_by_role("link", name=re.compile(f"^{view}", re.IGNORECASE)).first.click()
        for size, width in ((WIDE, "wide"), (NARROW, "narrow")):
            page.set_viewport_size({"width": size["width"], "height": size["height"]})
            settled(page, view)
            found = axe.run(page)
            assert found.violations_count == 0, f"{view}, {theme}, {width}\n{found.generate_report()}"
            assert not too_wide(page), view
            page.screenshot(path=PICTURES / f"view-{view}-{width}-{theme}.png")


@pytest.mark.usefixtures("busy")
def test_hostile_names_are_text(open_page: Open) -> None:
    page = open_page("/library")
    page.on("dialog", lambda dialog: pytest.fail("a name was executed"))
    page.get_by_role("button", name=f"How to use it, commits: {LONG}").click()
    refs = page.get_by_role("article", name=LONG).get_by_role("cell").first
    expect(refs).to_contain_text(HOSTILE_REF)
    assert page.locator("main img").count() == 0
    # One that writes from right to left turns nothing round but itself.
    assert refs.locator("bdi", has_text="gnp.eruces").count() == 1
    assert not too_wide(page)


def test_find_and_get_a_model(hub: HubServer, product: Product, open_page: Open) -> None:
    for name in ("Qwen3-0.6B-4bit", "Qwen3-0.6B-8bit", "Llama-3.2-1B-4bit"):
        hub.add_model(f"mlx-community/{name}", mlx_model_files(2 * MB, bits=8 if "8bit" in name else 4))
    page = open_page("/")
    expect(page.locator(".hit")).to_have_count(3)
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("qwen3")
    expect(page.locator(".hit")).to_have_count(2)
    page.get_by_label("Quantisation").select_option("8-bit")
    expect(page.locator(".hit")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"/\?q=qwen3&quant=8$"))
    page.reload()
    expect(page.locator(".hit")).to_have_count(1)
    found = page.get_by_role("article", name="mlx-community/Qwen3-0.6B-8bit")
    expect(found).to_contain_text("Fits")
    found.get_by_role("button", name="Download").press("Enter")
    expect(found.get_by_role("link", name="On this machine")).to_be_visible()
    page.get_by_role("searchbox").fill("no such model 🙂")
    expect(page.get_by_role("heading", name="No model found.")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.get_by_role("searchbox")).to_have_value("no such model 🙂")


def test_a_hub_that_does_not_answer_leaves_what_it_told(hub: HubServer, open_page: Open) -> None:
    hub.add_model("mlx-community/Qwen3-0.6B-4bit", mlx_model_files(MB))
    page = open_page("/", allowed="50\\d")
    expect(page.locator(".hit")).to_have_count(1)
    hub.network_down()
    page.get_by_role("searchbox").fill("Qwen")
    expect(page.locator(".asof.warn").or_(page.get_by_role("alert"))).to_be_visible()
    hub.network_up()


def test_a_model_is_deleted_with_its_plan_first(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model("mlx-community/Qwen3-0.6B-4bit", mlx_model_files(2 * MB))
    product.api.wait(product.api.download("mlx-community/Qwen3-0.6B-4bit"), Status.COMPLETED)
    page = open_page("/library")
    book = page.get_by_role("article", name="mlx-community/Qwen3-0.6B-4bit")
    book.get_by_role("button", name="How to use it").click()
    book.get_by_role("button", name="Copy In the terminal").click()
    expect(book.get_by_role("button", name="Copied")).to_be_visible()
    assert "mlx-community/Qwen3-0.6B-4bit" in page.evaluate("navigator.clipboard.readText()")
    book.get_by_role("button", name="Delete").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Frees2.0 MB")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(book.get_by_role("button", name="Delete").first).to_be_focused()
    book.get_by_role("button", name="Delete").first.click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="No model is here yet.")).to_be_visible()
    assert not list(product.cache.glob("models--*"))


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_what_is_seen_before_the_scripts_stands_where_it_stays(
    size: dict[str, int], browser: Browser, product: Product
) -> None:
    context = browser.new_context(viewport=size)
    page = context.new_page()
    page.route("**/app.js", lambda route: route.abort())
    page.goto(f"{product.url}/downloads")
    first = page.locator(".brand").bounding_box()
    page.unroute("**/app.js")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert first is not None
    assert page.locator(".brand").bounding_box() == first
    assert first["y"] < 40
    context.close()


def test_the_theme_is_kept(open_page: Open) -> None:
    page = open_page("/settings")
    page.get_by_role("radio", name="Dark").check(force=True)
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 20)"
    expect(page.get_by_role("radio", name="Dark")).to_be_checked()
