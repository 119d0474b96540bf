"""The demo's models, each with something to see."""

from __future__ import annotations

from fakes.hub_server import Fault, HubServer, mlx_model_files

MB = 1_000_000


def fill(hub: HubServer) -> list[tuple[str, str]]:
    """Add the models to a hub; their ids, and what each shows."""
    shown = []

    def add(name: str, what: str, size: int, *, shards: int = 1, gated: bool = False) -> str:
        model_id = f"demo/{name}"
        seed = sum(name.encode())
        hub.add_model(
            model_id,
            mlx_model_files(size, shards=shards, seed=seed),
            gated=gated,
            likes=seed,
            downloads=seed * seed // 9,
            pipeline_tag="text-generation",
        )
        shown.append((model_id, what))
        return model_id

    add("Tiny-0.1B-4bit", "a few seconds", 40 * MB)
    add("Calm-1B-4bit", "a minute in four shards: pause it, kill the server, start it again", 600 * MB, shards=4)
    stalls = add("Stalls-0.3B-4bit", "goes silent half-way: see what it says, and that it goes on", 120 * MB)
    hub.fault(Fault.stall(after=8 * MB), where="cdn", repo=stalls, times=3)
    breaks = add("Breaks-0.3B-4bit", "its connections are reset every 5 MB; it finishes all the same", 120 * MB)
    hub.fault(Fault.reset(after=5 * MB), where="cdn", repo=breaks)
    flips = add("Flips-0.2B-4bit", "one bit is wrong the first time; it is noticed and fetched again", 60 * MB)
    hub.fault(Fault.flip(offset=20 * MB), where="cdn", repo=flips, times=1)
    silent = add("Silent-0.6B-8bit", "the Hub never tells its files: after 30 s there is an estimate", 60 * MB)
    hub.fault(Fault.black_hole(), where="info", repo=silent)
    add("Gated-7B-4bit", "wants access that nobody has: says so at once, with the next step", 60 * MB, gated=True)
    hub.fault(Fault.status(403, error_code="GatedRepo"), where="info", repo="demo/Gated-7B-4bit")
    return shown
