"""What the page costs: its weight, the time to its first paint, and what fifty rows at four changes a second and a
library of a thousand models take.

Run by hand: ``PYTHONPATH=backend/tests .venv-browser/bin/python backend/browser/measure.py``; see docs/performance.md.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import CDPSession, sync_playwright

from conftest import WIDE, Product, find_browser
from fakes.hub_server import Fault, HubServer, mlx_model_files
from mlx_manager.routers.page import site

ROWS = 50
MODELS = 1000
VISITS = 9
SECONDS = 20
MB = 1_000_000
BUSY = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration")
_WATCH = """() => {
  window.seen = { frames: [], long: [], events: 0 };
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) window.seen.long.push(duration);
  }).observe({ type: "longtask", buffered: true });
  const tick = (at) => { window.seen.frames.push(at); requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""


def main() -> None:
    sizes = [len(asset.packed or asset.body) for asset in (*site().assets.values(), *site().named.values())]
    print(f"weight: {sum(sizes)} bytes gzipped in {len(sizes)} files")
    with tempfile.TemporaryDirectory() as folder, HubServer() as hub, sync_playwright() as playwright:
        hub.fault(Fault.rate(6 * MB, shared=True), where="cdn")
        product = Product(Path(folder), hub.url, MLX_MANAGER_MAX_DOWNLOADS=str(ROWS))
        product.start()
        for number in range(ROWS):
            hub.add_model(f"mlx-community/Model-{number}-4bit", mlx_model_files(60 * MB, seed=number))
            product.api.download(f"mlx-community/Model-{number}-4bit")
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        first, rows = [], []
        for _ in range(VISITS):
            page = browser.new_context(viewport=WIDE).new_page()
            page.goto(f"{product.url}/downloads")
            page.locator("article").nth(ROWS - 1).wait_for()
            rows.append(page.evaluate("performance.now()"))
            first.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            page.context.close()
        print(f"first paint, cold cache: median {median(first):.0f} ms, {min(first):.0f} to {max(first):.0f}")
        print(f"all {ROWS} rows there: median {median(rows):.0f} ms, {min(rows):.0f} to {max(rows):.0f}")
        page = browser.new_context(viewport=WIDE).new_page()
        page.goto(f"{product.url}/downloads")
        page.locator("article").nth(ROWS - 1).wait_for()
        page.wait_for_timeout(3000)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        page.evaluate(_WATCH)
        before, begun = _metrics(session), time.monotonic()
        page.wait_for_timeout(SECONDS * 1000)
        after, took = _metrics(session), time.monotonic() - begun
        seen = page.evaluate("window.seen")
        gaps = sorted(b - a for a, b in zip(seen["frames"], seen["frames"][1:], strict=False))
        for name in BUSY:
            print(f"{name}: {(after[name] - before[name]) / took * 100:.1f} % of the time")
        worst = gaps[int(len(gaps) * 0.99)]
        print(f"frames: median {median(gaps):.1f} ms apart, p99 {worst:.1f} ms; {_long(seen)}")
        product.stop()
        for number in range(MODELS):
            _put(product.cache, f"mlx-community/Model-{number}-4bit")
        product.start()
        product.api.get("/api/models/local")
        page = browser.new_context(viewport=WIDE).new_page()
        page.goto(f"{product.url}/library")
        page.locator(".book").nth(MODELS - 1).wait_for(state="attached")
        shown = page.evaluate("performance.now()")
        page.evaluate(_WATCH)
        page.wait_for_timeout(1000)
        opening = page.evaluate("window.seen")
        page.evaluate("window.seen.long = []")
        page.get_by_role("searchbox").press_sequentially("model-77", delay=150)
        page.locator(".book").nth(11).wait_for(state="detached")
        print(f"{MODELS} models: all there after {shown:.0f} ms, {_long(opening)}; while a name is typed, ", end="")
        print(_long(page.evaluate("window.seen")))
        browser.close()
        product.stop()


def _long(seen: dict[str, list[float]]) -> str:
    """Tasks of the page that took 50 ms and more."""
    return f"{len(seen['long'])} long tasks, the longest {max(seen['long'], default=0):.0f} ms"


def _put(cache: Path, model_id: str) -> None:
    """A model in the cache, whole and next to empty."""
    repo, commit, blob = cache / f"models--{model_id.replace('/', '--')}", "a" * 40, "b" * 40
    for folder in ("blobs", "refs", f"snapshots/{commit}"):
        (repo / folder).mkdir(parents=True, exist_ok=True)
    (repo / "blobs" / blob).write_text("{}")
    (repo / "refs" / "main").write_text(commit)
    for name in ("config.json", "model.safetensors"):
        link = repo / "snapshots" / commit / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../blobs/{blob}")


def _metrics(session: CDPSession) -> dict[str, float]:
    return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}


if __name__ == "__main__":
    main()
