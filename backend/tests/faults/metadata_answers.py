"""What the Hub answers when it is asked for a model's files."""

from __future__ import annotations

from fakes.hub_server import Fault
from faults.scene import WEIGHTS, Scene
from faults.table import row


def _passing(
    scene: Scene, fault: Fault, text: str, *, times: int, where: str = "info", phase: str = "retrying"
) -> None:
    """It strikes a few times, is told, and then the Hub is well again."""
    scene.model()
    strikes = scene.hub.fault(fault, where=where, times=times)
    scene.serve()
    scene.ask()
    scene.struck(strikes)
    scene.told(phase, text)
    scene.completed()
    assert strikes.hits == times, strikes.hits


@row("The Hub answers 500, three times", lasts_s=12)
def server_error(scene: Scene) -> None:
    _passing(scene, Fault.status(500), r"error of its own \(500\)", times=3)


@row("The Hub answers 502, three times", lasts_s=12)
def bad_gateway(scene: Scene) -> None:
    _passing(scene, Fault.status(502), r"\(502\)", times=3)


@row("The Hub answers 503, three times", lasts_s=12)
def unavailable(scene: Scene) -> None:
    _passing(scene, Fault.status(503), r"\(503\)", times=3)


@row("The Hub limits the rate (429) and asks to wait 3 s")
def rate_limited(scene: Scene) -> None:
    _passing(scene, Fault.rate_limited(retry_after=3), "asks to wait 3 s", times=1, phase="rate_limited")


@row("The Hub limits the rate (429) in its own header, RateLimit")
def rate_limited_by_header(scene: Scene) -> None:
    _passing(scene, Fault.rate_limited(reset=2), "asks to wait 2 s", times=1, phase="rate_limited")


@row("The Hub limits the rate (429) and does not say for how long")
def rate_limited_silently(scene: Scene) -> None:
    _passing(scene, Fault.rate_limited(), r"\(429\)", times=2, phase="rate_limited")


@row("The Hub's JSON is malformed, twice")
def malformed(scene: Scene) -> None:
    _passing(scene, Fault.bad_json(), "not the Hub's JSON", times=2)


@row("A login page comes in the place of JSON, twice")
def login_page(scene: Scene) -> None:
    _passing(scene, Fault.html(), "not the Hub's JSON", times=2)


@row("The listing's JSON breaks off in the middle, twice")
def truncated(scene: Scene) -> None:
    _passing(scene, Fault.truncated_json(), "not the Hub's JSON", times=2, where="tree")


@row("The Hub redirects in a circle, twice")
def redirect_loop(scene: Scene) -> None:
    scene.model()
    circle = scene.hub.fault(Fault.redirect_loop(), where="info")
    scene.serve()
    scene.ask()
    scene.struck(circle)
    scene.told("retrying", "circle")
    circle.clear()
    scene.then("The circle is gone.")
    scene.completed()


@row("The listing is empty")
def empty_tree(scene: Scene) -> None:
    scene.model()
    empty = scene.hub.fault(Fault.empty_tree(), where="tree")
    scene.serve()
    scene.ask()
    scene.struck(empty)
    scene.failed("empty_repository")


@row("The listing names a file outside of the model's folder (`../../x`)")
def unsafe_name(scene: Scene) -> None:
    scene.model()
    hostile = scene.hub.fault(Fault.tree_names("../../x"), where="tree")
    scene.serve()
    scene.ask()
    scene.struck(hostile)
    scene.failed("unsafe_file_name")
    assert not (scene.cache.parent / "x").exists()


@row("2,500 files, listed in pages; the second page answers 503 once", lasts_s=20)
def pages(scene: Scene) -> None:
    scene.model_id = "mlx-community/Many"
    files = {f"part-{number:04}.json": f'{{"part": {number}}}' for number in range(2500)}
    scene.hub.add_model(scene.model_id, {**files, WEIGHTS: b"\x08\0\0\0\0\0\0\0{}      "})
    broken = scene.hub.fault(Fault.status(503), where="tree", nth=2)
    scene.serve()
    scene.ask()
    scene.struck(broken)
    scene.told("retrying", r"\(503\)")
    assert scene.completed()["files_total"] == 2501


@row("The Hub deletes the model while it is fetched; the CDN still has the bytes")
def deleted_while_running(scene: Scene) -> None:
    _vanishes(scene, expire=False)
    scene.until(status="completed")
    scene.outcome.end = "completed"


@row("The Hub deletes the model while it is fetched, and the CDN's addresses expire")
def deleted_and_expired(scene: Scene) -> None:
    size = _vanishes(scene, expire=True)
    event = scene.told(status="failed")
    assert event.data["error_code"] == "file_gone", event.data
    assert 0 < event.data["downloaded_bytes"] < size
    scene.outcome.end = "failed: `file_gone`"


def _vanishes(scene: Scene, *, expire: bool) -> int:
    scene.model(8 << 20, shards=2)
    size = scene.size
    slow = scene.slow(4e6)
    scene.serve()
    scene.ask()
    scene.sent(2 << 20)
    scene.hub.delete(scene.model_id)
    if expire:
        scene.hub.expire_urls()
        scene.hub.network_down("cdn")
        scene.hub.network_up("cdn")
    scene.knowable()
    slow.clear()
    return size


@row("`main` moves to another commit while it is fetched")
def main_moves(scene: Scene) -> None:
    scene.model(8 << 20)
    commit, size = scene.hub.repo(scene.model_id).head.sha, scene.size
    slow = scene.slow(4e6)
    scene.serve()
    scene.ask()
    scene.sent(2 << 20)
    scene.hub.commit(scene.model_id, {"config.json": "{}"}, keep=True, title="Another config")
    slow.clear()
    event = scene.until(status="completed")
    assert event.data["commit"] == commit
    scene.right(commit)
    scene.outcome.again = max(0, scene.hub.bytes_sent() - size)
    scene.outcome.end = "completed, at the commit that was asked for"
