"""Choosing a model in the browser: the first minute, a model's own view, and the way through a gate."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Route, expect

from conftest import PATIENCE_MS, Open, Product, drawn_after, too_wide
from discovering import LLAMA, add, quantised
from fakes.hub_server import TOKEN, HubServer, mlx_model_files
from mlx_manager.domain.states import Status
from mlx_manager.services.discovery.starting import CANDIDATES

expect.set_options(timeout=PATIENCE_MS)

MB = 1_000_000
MODEL = "mlx-community/Qwen3-0.6B-4bit"
HOSTILE_CARD = """
# A card <img src=x onerror="top.done=1">

<script>top.done = 1</script>
<a href="javascript:top.done=1">press me</a> <form action="/api/hub/token"><input></form>
<iframe src="/settings"></iframe><svg onload="top.done=1"></svg>

| bench | score |
|---|---|
| MMLU | 52.1 |
"""


def test_from_opening_the_page_to_a_finished_model(hub: HubServer, open_page: Open) -> None:
    for name, _ in CANDIDATES:
        hub.add_model(name, mlx_model_files(3 * MB))
    page = open_page("/")
    expect(page.get_by_role("heading", name="Welcome", level=1)).to_be_visible()
    starters = page.get_by_role("region", name="To begin with").get_by_role("listitem")
    expect(starters).to_have_count(3)
    for starter in starters.all():
        expect(starter).to_contain_text("Fits")
        expect(starter.get_by_role("button", name="Download")).to_have_count(1)
    first = starters.filter(has_text="Qwen3-0.6B-4bit")
    first.get_by_role("button", name="Download").press("Enter")
    expect(page.get_by_role("link", name=f"On this machine {MODEL}").first).to_be_visible()
    # The greeting has done its work.
    expect(page.get_by_role("heading", name="Discover", level=1)).to_be_visible()
    page.get_by_role("link", name="Library", exact=True).click()
    expect(page.get_by_role("article", name=MODEL)).to_contain_text("Complete")


def test_a_model_shows_what_decides_and_has_one_button(hub: HubServer, product: Product, open_page: Open) -> None:
    # As if it weighed four gigabytes: the header of the weights says so, and nobody fetches them here.
    add(hub, "mlx-community/Big-7B-4bit", bits=4, counts=quantised(7 * 10**9, 4), card="base_model: org/Big-7B")
    add(hub, "mlx-community/Big-7B-8bit", bits=8, counts=quantised(7 * 10**9, 8), card="base_model: org/Big-7B")
    page = open_page("/models/mlx-community/Big-7B-4bit")
    will_it_run = page.get_by_role("region", name="Will it run?")
    expect(will_it_run).to_contain_text(re.compile(r"Weights\d"))
    before = will_it_run.locator(".fit-parts").inner_text()
    will_it_run.get_by_label("With a context of").select_option("32k tokens")
    expect(will_it_run).to_contain_text(re.compile(r"Context of 32k tokens4\.3 GB"))
    assert will_it_run.locator(".fit-parts").inner_text() != before
    expect(page).to_have_url(re.compile(r"\?context=32768$"))
    page.reload()
    expect(will_it_run).to_contain_text("Context of 32k tokens")
    variants = page.get_by_role("region", name="Variants").get_by_role("table")
    expect(variants.get_by_role("row", name=re.compile("Big-7B-8bit"))).to_contain_text("8-bit")
    page.get_by_role("button", name="Files: mlx-community/Big-7B-4bit").click()
    expect(page.get_by_role("row", name=re.compile("model.safetensors"))).to_contain_text("will come")
    assert page.locator(".button.primary").count() == 1


def test_the_view_of_a_model_follows_what_happens_to_it(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(2 * MB))
    page = open_page(f"/models/{MODEL}")
    page.get_by_role("button", name=f"Files: {MODEL}").click()
    weights = page.get_by_role("row", name=re.compile("^model.safetensors 2"))
    expect(weights).to_contain_text("will come")
    get_it, use_it = page.get_by_role("region", name="Get it"), page.get_by_role("region", name="Use it")
    get_it.get_by_role("button", name="Download 2.0 MB").click()
    expect(use_it).to_be_visible()
    expect(weights).to_contain_text("here")
    expect(get_it).to_contain_text("All of it is here already.")
    # Deleted elsewhere: whoever comes back to this window sees it.
    assert product.api.call("DELETE", f"/api/models/local/{MODEL}").status == 200
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(get_it.get_by_role("button", name="Download 2.0 MB")).to_be_visible()
    expect(use_it).to_be_hidden()
    expect(weights).to_contain_text("will come")


def test_another_revision_has_its_own_button(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(2 * MB))
    hub.tag(MODEL, "v1")
    hub.commit(MODEL, {"notes.json": "{}"}, keep=True)
    product.api.wait(product.api.download(MODEL, revision="v1"), Status.COMPLETED)
    page = open_page(f"/models/{MODEL}?revision=v1")
    get_it = page.get_by_role("region", name="Get it")
    expect(get_it.get_by_role("link", name="On this machine")).to_be_visible()
    get_it.get_by_label("Revision").select_option("main")
    expect(page).to_have_url(f"{product.url}/models/{MODEL}")
    product.api.wait(product.api.download(MODEL), Status.COMPLETED)
    hub.commit(MODEL, {"more.json": "[1, 2, 3]"}, keep=True)
    hub.tag(MODEL, "v2")
    page.goto(f"{product.url}/models/{MODEL}?revision=v2")
    expect(get_it.get_by_role("button", name="Download 9 B")).to_be_visible()
    get_it.get_by_role("button", name="Download 9 B").click()
    expect(get_it.get_by_role("link", name="On this machine")).to_be_visible()


def test_of_two_contexts_the_last_one_counts(hub: HubServer, open_page: Open) -> None:
    add(hub, MODEL, bits=4, counts=quantised(7 * 10**9, 4))
    page = open_page(f"/models/{MODEL}")
    held: list[Route] = []
    page.route(re.compile(r"/fit/.*context=2048"), lambda route: held.append(route))
    will_it_run = page.get_by_role("region", name="Will it run?")
    choice = will_it_run.get_by_label("With a context of")
    with page.expect_request(re.compile(r"/fit/.*context=2048")) as asked:
        choice.select_option("2k tokens")
    choice.select_option("32k tokens")
    expect(will_it_run).to_contain_text("Context of 32k tokens")
    held[0].continue_()
    drawn_after(page, asked.value)
    expect(will_it_run).to_contain_text("Context of 32k tokens")
    assert choice.input_value() == "32768"


def test_the_beginning_is_asked_for_again_when_it_failed(hub: HubServer, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(MB))
    page = open_page("/settings", allowed="500")
    trouble = {
        "title": "x",
        "status": 500,
        "detail": "The beginning is not known.",
        "code": "internal",
        "advice": "Wait.",
    }
    page.route("**/api/starters", lambda route: route.fulfill(status=500, json=trouble))
    page.get_by_role("link", name="Discover").click()
    expect(page.get_by_role("alert")).to_contain_text("The beginning is not known.")
    expect(page.get_by_role("heading", name="Welcome", level=1)).to_be_visible()
    assert "one click" not in page.locator(".lead").inner_text()
    page.unroute("**/api/starters")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".starter .button")).to_be_visible()
    expect(page.locator(".lead")).to_contain_text("one click")


def test_a_card_can_do_nothing(hub: HubServer, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(MB) | {"README.md": f"---\nlicense: mit\n---\n{HOSTILE_CARD}"})
    page = open_page(f"/models/{MODEL}")
    page.on("dialog", lambda dialog: pytest.fail("a card was executed"))
    card = page.frame_locator("iframe.card")
    expect(card.get_by_role("table")).to_contain_text("52.1")
    expect(card.get_by_text("press me")).to_be_visible()
    assert card.locator("script, form, input, iframe, svg, img, [onerror], a[href^=javascript]").count() == 0
    assert page.evaluate("window.done") is None
    assert "allow-scripts" not in (page.locator("iframe.card").get_attribute("sandbox") or "")


def test_a_gated_model_leads_to_its_access(hub: HubServer, product: Product, open_page: Open) -> None:
    """From the hit to the finished download, with a token that is tested, kept, and shown by nobody."""
    hub.add_model(MODEL, mlx_model_files(2 * MB), gated=True)
    page = open_page("/", allowed="40[01]|422")
    hit = page.get_by_role("article", name=MODEL)
    expect(hit).to_contain_text("Gated")
    assert hit.get_by_role("button", name="Download").count() == 0
    hit.get_by_role("link", name="See access").click()
    expect(page.get_by_text("Its authors ask for your agreement first.")).to_be_visible()
    assert page.get_by_role("button", name="Download").count() == 0
    page.get_by_role("region", name="Get it").get_by_role("link", name="Settings").click()
    account = page.get_by_role("region", name="Your Hub account")
    account.get_by_label("Access token").fill("hf_wrong")
    account.get_by_role("button", name="Test and keep").click()
    expect(account.get_by_role("alert")).to_be_visible()
    expect(account.get_by_label("token")).to_have_value("")
    account.get_by_label("token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(account).to_contain_text("The Hub knows you as tester.")
    expect(account.get_by_label("token")).to_have_value("")
    page.reload()
    expect(account).to_contain_text("The Hub knows you as tester.")
    assert TOKEN not in page.content()
    assert account.get_by_label("token").get_attribute("type") == "password"
    page.goto(f"{product.url}/models/{MODEL}")
    expect(page.get_by_text("Your token is here.")).to_be_visible()
    hub.grant(MODEL)
    page.get_by_role("button", name="Look again").click()
    page.get_by_role("button", name="Download 2.0 MB").click()
    expect(page.get_by_role("region", name="Get it").get_by_role("link", name="On this machine")).to_be_visible()
    # And out again.
    page.goto(f"{product.url}/settings")
    account.get_by_role("button", name="Forget it").click()
    expect(account).to_contain_text("No token")


def test_what_failed_is_tried_again(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(MB), gated=True, readers=[])
    product.api.wait(product.api.download(MODEL), Status.FAILED)
    page = open_page("/downloads")
    model = page.get_by_role("article", name=MODEL)
    expect(model.get_by_role("link", name="How to get access")).to_have_attribute("href", f"/models/{MODEL}")
    hub.add_model(MODEL, mlx_model_files(MB))
    model.get_by_role("button", name="Try again").click()
    expect(model).to_contain_text("every byte verified")


# --- what hubs say that they should not -------------------------------------------------------------------------------


def test_a_model_that_the_hub_has_no_longer(hub: HubServer, product: Product, open_page: Open) -> None:
    hub.add_model(MODEL, mlx_model_files(MB))
    page = open_page("/", allowed="404")
    hit = page.get_by_role("article", name=MODEL)
    expect(hit).to_be_visible()
    hub.delete(MODEL)
    hit.get_by_role("link", name=MODEL).click()
    expect(page.get_by_role("alert")).to_contain_text(f"The Hub has no model {MODEL}")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    assert page.get_by_role("button", name="Download").count() == 0


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(None, id="missing"),
        pytest.param("{ this is no JSON", id="not JSON"),
        pytest.param("[" * 5000, id="deep"),
        pytest.param(json.dumps({**LLAMA, "x": "y" * 6 * MB}), id="huge"),
        pytest.param(
            json.dumps({**LLAMA, "num_hidden_layers": -4, "hidden_size": 10**30, "max_position_embeddings": "many"}),
            id="lies",
        ),
        pytest.param(
            json.dumps({"model_type": "<img src=x onerror=alert(1)>", "architectures": {"a": 1}}), id="script"
        ),
    ],
)
def test_a_config_that_cannot_be_believed(config: str | None, hub: HubServer, open_page: Open) -> None:
    files = mlx_model_files(MB)
    del files["config.json"]
    hub.add_model(MODEL, files if config is None else files | {"config.json": config})
    page = open_page(f"/models/{MODEL}")
    page.on("dialog", lambda dialog: pytest.fail("a config was executed"))
    expect(page.get_by_role("button", name=re.compile(r"^Download \d"))).to_be_enabled()
    expect(page.get_by_role("region", name="Will it run?")).to_contain_text(re.compile("Weights|not|cannot"))
    assert page.locator("main img").count() == 0
    assert "NaN" not in page.locator("main").inner_text()
    assert not too_wide(page)


def test_names_that_nobody_would_choose(hub: HubServer, open_page: Open) -> None:
    long = f"mlx-community/{'Very-long-name-' * 5}4bit"
    hub.add_model(long, mlx_model_files(MB) | {f"{'w' * 200}.json": "{}", "\u202egpj.exe.json": "{}"})
    page = open_page("/", size={"width": 320, "height": 640})
    expect(page.get_by_role("article", name=long)).to_be_visible()
    assert not too_wide(page)
    page.get_by_role("searchbox").fill("🙂 שלום <script>alert(1)</script>" + "x" * 150)
    expect(page.get_by_role("heading", name="No model found.").or_(page.get_by_role("alert"))).to_be_visible()
    assert not too_wide(page)
    page.get_by_role("searchbox").fill(long)
    page.get_by_role("article", name=long).get_by_role("link", name=long).click()
    page.get_by_role("button", name=f"Files: {long}").click()
    expect(page.get_by_role("row", name=re.compile("gpj.exe"))).to_be_visible()
    assert not too_wide(page)


def test_ten_thousand_hits_come_page_by_page(hub: HubServer, open_page: Open) -> None:
    for number in range(70):
        add(hub, f"mlx-community/Model-{number}-4bit", bits=4)
    page = open_page("/")
    expect(page.locator(".hit")).to_have_count(30)
    page.get_by_role("button", name="More models").click()
    expect(page.locator(".hit")).to_have_count(60)
    page.get_by_role("button", name="More models").click()
    expect(page.locator(".hit")).to_have_count(70)
    expect(page.get_by_role("button", name="More models")).to_be_hidden()
