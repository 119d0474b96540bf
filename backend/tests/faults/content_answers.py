"""What the CDN answers when it is asked for bytes."""

from __future__ import annotations

from fakes.hub_server import Fault
from faults.scene import BIG, WEIGHTS, Scene
from faults.table import row

MIB = 1 << 20


def _passing(scene: Scene, fault: Fault, text: str, *, phase: str = "retrying", times: int = 1) -> None:
    """It strikes, is told, and then the CDN is well again."""
    scene.model(4 * MIB)
    strikes = scene.hub.fault(fault, where="cdn", path=BIG, times=times)
    scene.serve()
    scene.ask()
    scene.struck(strikes)
    scene.told(phase, text)
    scene.completed()


def _permanent(scene: Scene, fault: Fault, code: str, text: str) -> None:
    """It strikes whenever the file is asked for, and ends with the reason; once it is gone, resuming completes."""
    scene.model(4 * MIB)
    strikes = scene.hub.fault(fault, where="cdn", path=BIG)
    slow = scene.slow(8e6)
    scene.serve()
    scene.ask()
    scene.struck(strikes)
    scene.told(text=text)
    scene.failed(code, at_last=True)
    strikes.clear()
    slow.clear()
    scene.resume("The CDN is well again; the person resumes.")
    scene.completed()


@row("The body ends 1 MiB early", quick=True)
def short_body(scene: Scene) -> None:
    _untroubled(scene, Fault.short_body(3 * MIB))


@row("The body ends after 100 bytes, five times in a row", lasts_s=10)
def very_short_bodies(scene: Scene) -> None:
    _passing(scene, Fault.short_body(100), "ended .* early|closed", times=5)


def _untroubled(scene: Scene, fault: Fault, times: int | None = 1) -> None:
    scene.model(4 * MIB)
    strikes = scene.hub.fault(fault, where="cdn", path=BIG, times=times)
    scene.serve()
    scene.ask()
    scene.struck(strikes)
    scene.completed()


@row("The connection is reset after every 600,000 bytes", again=4 * MIB)
def resets(scene: Scene) -> None:
    _untroubled(scene, Fault.wears_out(600_000), times=None)


@row("The body is longer than the file")
def long_body(scene: Scene) -> None:
    _untroubled(scene, Fault.long_body(1000))


@row("Content-Length is too long by 1,000")
def content_length(scene: Scene) -> None:
    _untroubled(scene, Fault.content_length(1000))


@row("Content-Length is too short by 1,000")
def content_length_short(scene: Scene) -> None:
    _untroubled(scene, Fault.content_length(-1000))


@row("Range is ignored: 200 with all of the file", again=None)
def range_ignored(scene: Scene) -> None:
    scene.model(4 * MIB)
    scene.hub.fault(Fault.reset(MIB), where="cdn", path=BIG, times=1)
    ignores = scene.hub.fault(Fault.ignore_range(), where="cdn", path=BIG)
    scene.serve()
    scene.ask()
    ignores.wait_hit()
    scene.completed()


@row("Content-Range names other bytes than were asked for", again=8 * MIB)
def wrong_range(scene: Scene) -> None:
    _passing(scene, Fault.wrong_range(), "where .* were asked", times=2)


@row("Content-Range names another size of the file", again=8 * MIB)
def wrong_total(scene: Scene) -> None:
    _passing(scene, Fault.wrong_total(), "the Hub says", times=2)


@row("The Hub names another ETag than its listing did", again=None)
def etag_changed(scene: Scene) -> None:
    scene.model(4 * MIB)
    changed = scene.hub.fault(Fault.etag("0" * 64), where="resolve", path=WEIGHTS)
    scene.serve()
    scene.ask()
    scene.struck(changed)
    scene.failed("source_changed")


@row("The body comes compressed (gzip), though nobody asked for that", again=8 * MIB)
def gzip(scene: Scene) -> None:
    _passing(scene, Fault.gzip(), "encoded")


@row("The signed address has expired (403), once")
def expired_once(scene: Scene) -> None:
    _passing(scene, Fault.expired_url(), "expired")


@row("All signed addresses expire while it is paused; the person resumes")
def expired_on_resume(scene: Scene) -> None:
    scene.model(8 * MIB)
    slow = scene.slow(4e6)
    scene.serve()
    scene.ask()
    scene.sent(2 * MIB)
    scene.move("pause")
    scene.hub.expire_urls()
    slow.clear()
    sent = scene.hub.bytes_sent()
    scene.resume("The person pauses, and resumes when the addresses have expired.")
    event = scene.completed(again=0)
    kept = int(event["reused_bytes"])
    scene.outcome.again = max(0, scene.hub.bytes_sent() - sent - (scene.size - kept))
    assert kept >= MIB, kept


@row("416 for a range that is fine, once")
def unsatisfiable(scene: Scene) -> None:
    _passing(scene, Fault.unsatisfiable(), "will not give bytes")


@row("The CDN answers 500 to every fourth request", again=None)
def cdn_errors(scene: Scene) -> None:
    scene.model(16 * MIB, shards=4)
    errors = scene.hub.fault(Fault.status(500), where="cdn", nth=range(1, 100, 4))
    scene.serve()
    scene.ask()
    errors.wait_hit()
    scene.completed()


@row("The CDN has too much to do (503), three times", lasts_s=8)
def cdn_busy(scene: Scene) -> None:
    _passing(scene, Fault.status(503), r"answered 503", times=3)


@row("The CDN limits the rate (429) and asks to wait 3 s", lasts_s=8)
def cdn_rate_limited(scene: Scene) -> None:
    _passing(scene, Fault.rate_limited(retry_after=3), "asks to wait 3 s", phase="rate_limited")


@row("One bit is flipped on the way, once", again=None)
def flipped_once(scene: Scene) -> None:
    scene.model(4 * MIB)
    flip = scene.hub.fault(Fault.flip(2 * MIB), where="cdn", path=BIG, times=1)
    slow = scene.slow(8e6)
    scene.serve()
    scene.ask()
    scene.struck(flip)
    scene.sent(4 * MIB)
    scene.knowable()
    scene.told(text="wrong bytes")
    slow.clear()
    scene.completed()


@row("One bit is flipped whenever the file is fetched", again=None)
def flipped_always(scene: Scene) -> None:
    _permanent(scene, Fault.flip(2 * MIB), "hash_mismatch", "wrong bytes")


@row("The CDN sends the bytes of another file of the same size", again=None)
def wrong_file(scene: Scene) -> None:
    _permanent(scene, Fault.other_content(), "hash_mismatch", "wrong bytes")


@row("The CDN refuses every range (416)", again=None, lasts_s=12)
def ranges_refused(scene: Scene) -> None:
    _permanent(scene, Fault.unsatisfiable(), "source_rejected", "will not give bytes")
