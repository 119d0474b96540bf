"""Bytes that come too slowly, or not at all."""

from __future__ import annotations

import time

from fakes.hub_server import Fault
from faults.scene import BIG, WEIGHTS, Scene
from faults.table import STALL_S, row

MIB = 1 << 20


def _stalls(scene: Scene, after: int) -> None:
    """All of one file comes over one connection, which falls silent; a new one gets the rest."""
    scene.model(4 * MIB)
    stall = scene.hub.fault(Fault.stall(after=after), where="cdn", path=BIG, times=1)
    scene.serve(MLX_MANAGER_CONNECTIONS="1")
    scene.ask()
    stall.wait_hit()
    scene.sent(after + 1)
    scene.knowable()
    scene.told("stalled", "no byte for .* a new connection in")
    scene.completed()


@row("The CDN stalls before the first byte", promise_s=STALL_S, lasts_s=12)
def stall_at_0(scene: Scene) -> None:
    _stalls(scene, 0)


@row("The CDN stalls in the middle", promise_s=STALL_S, lasts_s=12)
def stall_in_the_middle(scene: Scene) -> None:
    _stalls(scene, 2 * MIB)


@row("The CDN stalls at 99.9 %", promise_s=STALL_S, lasts_s=12)
def stall_at_the_end(scene: Scene) -> None:
    _stalls(scene, 4 * MIB - 4096)


@row("The CDN's bytes trickle, one in 3 s: an idle timer never notices", promise_s=STALL_S, again=64 * 1024, lasts_s=25)
def trickle(scene: Scene) -> None:
    scene.model(4 * MIB)
    scene.hub.fault(Fault.trickle(1, 3), where="cdn", path=BIG, times=1)
    scene.serve()
    began = time.monotonic()
    scene.ask()
    scene.completed()
    assert time.monotonic() - began < 20


@row(
    "Every connection crawls at 300 bytes a second, for good; then the line is well again",
    promise_s=STALL_S,
    lasts_s=25,
)
def all_crawl(scene: Scene) -> None:
    scene.model(4 * MIB)
    crawl = scene.hub.fault(Fault.rate(300), where="cdn", path=BIG)
    scene.serve()
    scene.ask()
    scene.struck(crawl)
    scene.told("stalled", r"B/s over")
    crawl.clear()
    scene.then("The line is well again.")
    scene.completed()


@row("One shard of four is slow: its connection gets a fiftieth of the others' rate", again=2 * MIB, lasts_s=10)
def slow_shard(scene: Scene) -> None:
    scene.model(16 * MIB, shards=4)
    scene.hub.fault(Fault.rate(4e6), where="cdn")
    scene.hub.fault(Fault.rate(80_000), where="cdn", path="model-00002*", times=1)
    scene.serve()
    began = time.monotonic()
    scene.ask()
    scene.completed()
    # 4 MiB at 80 kB/s would take 50 s.
    assert time.monotonic() - began < 30


@row("Each connection is capped at 1 MB/s", again=MIB)
def capped_connections(scene: Scene) -> None:
    scene.model(16 * MIB, shards=2)
    scene.hub.fault(Fault.rate(1e6), where="cdn")
    scene.serve()
    scene.ask()
    event = scene.until("transferring", r"over ([4-9]|1\d) connections")
    scene.note(event.data, 0.0)
    scene.completed()


# A range whose second half is handed on may have been sent whole by then: on loopback the sockets hold all of it.
@row("The CDN takes connections and never answers; then it does", promise_s=STALL_S, again=4 * MIB, lasts_s=15)
def cdn_black_hole(scene: Scene) -> None:
    scene.model(4 * MIB)
    hole = scene.hub.fault(Fault.black_hole(), where="cdn", path=WEIGHTS)
    scene.serve()
    scene.ask()
    scene.struck(hole)
    scene.told("stalled", "no byte for")
    hole.clear()
    scene.then("The CDN answers.")
    scene.completed()


@row(
    "All open connections fall silent for ever and new ones work, as after a change of address",
    promise_s=STALL_S,
    again=8 * MIB,
    lasts_s=15,
)
def address_changed(scene: Scene) -> None:
    scene.model(16 * MIB, shards=4)
    first = range(1, 5)
    for shard in first:
        scene.hub.fault(Fault.stall(after=MIB), where="cdn", path=f"model-0000{shard}*", times=1)
    scene.serve()
    scene.ask()
    scene.sent(4 * MIB)
    scene.knowable()
    scene.told("stalled", "no byte for .* a new connection in")
    scene.completed()
