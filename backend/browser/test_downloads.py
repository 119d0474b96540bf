"""Downloads in the browser: what is seen of them, and what may be asked."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect

from conftest import PATIENCE_MS, Open, Product
from fakes.hub_server import Fault, HubServer, mlx_model_files
from mlx_manager.domain.states import Status

expect.set_options(timeout=PATIENCE_MS)

MB = 1_000_000
MODEL = "mlx-community/Qwen3-0.6B-4bit"


def flow(hub: HubServer, megabytes_a_second: float) -> None:
    hub.fault(Fault.rate(megabytes_a_second * MB, shared=True), where="content")


def test_from_the_first_byte_to_the_library(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(12 * MB, shards=3))
    flow(hub, 6)
    page = open_page("/downloads")
    expect(page.get_by_text("Nothing is being downloaded.")).to_be_visible()
    product.api.download(MODEL)
    model = page.get_by_role("article", name=MODEL)
    expect(model).to_contain_text("Downloading")
    expect(model.get_by_role("progressbar")).to_have_attribute("aria-valuetext", re.compile(r"^\d.* of 12\.0 MB$"))
    expect(page).to_have_title(re.compile(r"^\d+ % · .*/s · Downloads · MLX Manager$"))
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("mood=active"))
    expect(model).to_contain_text("Complete")
    expect(model).to_contain_text("every byte verified")
    expect(page.get_by_role("status").filter(has_text="complete and verified")).to_be_attached()
    expect(page).to_have_title("Downloads · MLX Manager")
    page.get_by_role("link", name="Library").click()
    expect(page.get_by_role("article", name=MODEL)).to_contain_text("Complete")
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_pause_resume_cancel_and_take_it_back(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(40 * MB))
    flow(hub, 3)
    task = product.api.download(MODEL)
    page = open_page("/downloads")
    model = page.get_by_role("article", name=MODEL)
    # Something that can be there afterwards has come.
    expect(model.locator(".percent")).to_have_text(re.compile(r"^[1-9]"))
    model.get_by_role("button", name="Pause").press("Enter")
    expect(model).to_contain_text("Paused. All that was received is kept.")
    # The button became another one, in another list; whoever works with the keyboard is still at it.
    expect(model.get_by_role("button", name="Resume")).to_be_focused()
    told = model.locator(".figures").inner_text()
    page.reload()
    expect(model.locator(".figures")).to_have_text(re.compile(re.escape(told.split("\n")[0])))
    model.get_by_role("button", name="Resume").click()
    expect(model).to_have_attribute("data-status", "downloading")
    expect(model).to_contain_text("were here")
    # Taken back in time, a cancel never happened.
    model.get_by_role("button", name="Cancel").click()
    model.get_by_role("button", name="Undo").click()
    expect(model.get_by_role("button", name="Cancel")).to_be_visible()
    assert product.api.status(task)["status"] == "downloading"
    model.get_by_role("button", name="Cancel").click()
    expect(model).to_contain_text("Will be cancelled in")
    assert product.api.status(task)["status"] == "downloading"
    expect(model).to_contain_text("Cancelled. Nothing partial was kept.")
    assert not list(product.cache.rglob("*.part"))


def test_whoever_closes_the_page_has_not_taken_the_cancel_back(
    hub: HubServer, product: Product, open_page: Open
) -> None:
    hub.add_model(MODEL, mlx_model_files(40 * MB))
    flow(hub, 3)
    task = product.api.download(MODEL)
    page = open_page("/downloads")
    page.get_by_role("article", name=MODEL).get_by_role("button", name="Cancel").click()
    page.goto("about:blank")
    assert product.api.wait(task, Status.CANCELLED)


def test_two_tabs_show_the_same(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(180 * MB))
    flow(hub, 3)
    product.api.download(MODEL)
    one = open_page("/downloads")
    drawn = re.compile(r"\d")
    curve = one.locator(".curve-line")
    expect(curve).to_have_attribute("points", drawn)
    seen = len((curve.get_attribute("points") or "").split())
    # The history is the server's, so the new tab has it at once.
    two = open_page("/downloads")
    expect(two.locator(".curve-line")).to_have_attribute("points", drawn)
    assert len((two.locator(".curve-line").get_attribute("points") or "").split()) >= seen
    one.get_by_role("article", name=MODEL).get_by_role("button", name="Pause").click()
    for page in (one, two):
        expect(page.get_by_role("article", name=MODEL)).to_contain_text("All that was received is kept.")
    assert one.locator(".figures").inner_text() == two.locator(".figures").inner_text()


@pytest.mark.settings(MLX_MANAGER_STALL_S="60")
def test_a_stall_is_seen_within_five_seconds(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(20 * MB))
    page = open_page("/downloads")
    held = hub.fault(Fault.stall(after=2 * MB), where="cdn")
    product.api.download(MODEL)
    held.wait_hit()
    age = page.get_by_role("article", name=MODEL).get_by_text(re.compile("last byte .* ago"))
    expect(age).to_be_visible()
    first = re.search(r"last byte (\d+) s ago", age.inner_text())
    assert first is not None and int(first[1]) <= 5
    expect(page.get_by_role("article", name=MODEL)).to_contain_text("Stalled")
    expect(page).to_have_title(re.compile(r"^\d+ %, waiting"))
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("mood=waiting"))
    hub.clear_faults()
    expect(page.get_by_role("article", name=MODEL)).to_contain_text("Complete")


def test_a_hub_that_goes_away_is_waited_for(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(12 * MB))
    flow(hub, 4)
    product.api.download(MODEL)
    page = open_page("/downloads")
    model = page.get_by_role("article", name=MODEL)
    expect(model).to_contain_text("Downloading")
    hub.network_down()
    expect(model).to_contain_text(re.compile(r"(Tried|Asked) again in"))
    hub.network_up()
    expect(model).to_contain_text("Complete")


def test_what_is_gated_says_so_with_the_next_step(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(MB), gated=True)
    page = open_page("/downloads")
    product.api.download(MODEL)
    model = page.get_by_role("article", name=MODEL)
    expect(model).to_contain_text("Failed")
    expect(model.locator(".callout")).to_contain_text(re.compile("access", re.IGNORECASE))
    expect(model.get_by_role("button", name="Try again")).to_be_visible()


def test_a_full_disk_is_said_before_the_first_byte(
    hub: HubServer, product: Product, open_page: Open, tmp_path: Path
) -> None:
    product.cache.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(product.cache)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        hub.add_model(MODEL, mlx_model_files(20 * MB))
        page = open_page("/downloads", allowed=r"net::ERR_")
        product.api.download(MODEL)
        model = page.get_by_role("article", name=MODEL)
        expect(model).to_contain_text("are missing on the disk")
        expect(model.locator(".callout p").nth(1)).not_to_be_empty()
        expect(page.get_by_text("are missing for all of this")).to_be_visible()
        page.get_by_role("link", name="Make room in the library").click()
        expect(page).to_have_url(re.compile(r"/library\?sort=size$"))
    finally:
        product.stop()
        subprocess.run(["umount", str(product.cache)], check=True)


def test_the_files_of_a_download_on_demand(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(10 * MB, shards=4) | {"‮gpj.exe.json": "{}", "<img src=x>.txt": "x"})
    flow(hub, 3)
    product.api.download(MODEL)
    page = open_page("/downloads")
    unfold = page.get_by_role("button", name=f"Details: {MODEL}")
    unfold.focus()
    page.keyboard.press("Enter")
    table = page.get_by_role("table")
    expect(table.get_by_role("row", name=re.compile("model-00001-of-00004.safetensors"))).to_be_visible()
    expect(table.get_by_role("row", name="<img src=x>.txt")).to_be_visible()
    assert page.locator("table img").count() == 0
    # It comes to its end and moves to another list, and the focus goes with it.
    expect(page.get_by_text("every byte verified")).to_be_visible()
    expect(unfold).to_be_focused()


def test_a_cap_slows_all_downloads_down(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(60 * MB))
    flow(hub, 5)
    product.api.download(MODEL)
    page = open_page("/downloads")
    page.get_by_label("Most bytes per second, all downloads together").select_option("1.0 MB/s")
    expect(page.get_by_role("article", name=MODEL)).to_contain_text(re.compile(r"1\.\d MB/s|9\d\d\.\d kB/s"))
    assert product.api.get("/api/limits").json == {"bandwidth_bps": MB}
    page.get_by_label("Most bytes per second, all downloads together").select_option("Other …")
    page.get_by_label("Most bytes per second, all downloads together, MB/s").fill("0.5")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Most bytes per second, all downloads together")).to_have_value("500000")
    assert product.api.get("/api/limits").json == {"bandwidth_bps": MB // 2}
