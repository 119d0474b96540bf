"""The way to the Hub: names, connections, silence."""

from __future__ import annotations

from fakes.hub_server import Fault
from faults.machine import Need, private_names
from faults.scene import Scene
from faults.table import STALL_S, row

NAME = "hub.faults.test"


@row("Nobody listens at the Hub's address", quick=True)
def refused(scene: Scene) -> None:
    scene.model()
    scene.hub.network_down("hub")
    scene.serve()
    scene.ask()
    scene.told("retrying", "refused")
    scene.hub.network_up("hub")
    scene.then("The Hub listens again.")
    scene.completed()


@row("The Hub's name is not found (DNS)", needs=[Need.MOUNTS])
def dns(scene: Scene) -> None:
    scene.model()
    names = scene.enter(private_names(scene.root))
    scene.serve(HF_ENDPOINT=scene.hub.url.replace("127.0.0.1", NAME))
    scene.ask()
    scene.told("retrying", "cannot be resolved")
    with names.open("a") as hosts:
        hosts.write(f"127.0.0.1 {NAME}\n")
    scene.then("The name is found again.")
    scene.completed()


@row("The Hub takes the question and never answers", promise_s=STALL_S, lasts_s=12)
def black_hole(scene: Scene) -> None:
    scene.model()
    hole = scene.hub.fault(Fault.black_hole(), where="info")
    scene.serve()
    scene.ask()
    scene.struck(hole)
    scene.told("waiting_for_hub", "no full answer for")
    scene.until("retrying", "silent")
    hole.clear()
    scene.then("The Hub answers the next question.")
    scene.completed()


@row("The Hub answers 5 s late", promise_s=STALL_S, lasts_s=8)
def late(scene: Scene) -> None:
    scene.model()
    delay = scene.hub.fault(Fault.delay(5), where="info", times=1)
    scene.serve()
    scene.ask()
    scene.struck(delay)
    scene.told("waiting_for_hub", "no full answer for")
    scene.completed()
