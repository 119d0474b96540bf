"""The test hub's Xet: the real `hf` downloads from it, and every fault strikes there too."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.hub_client import Answer, fetch
from fakes.hub_server import TOKEN, Blob, Fault, HubServer
from hub_cache import hf

REPO = "mlx-community/Tiny-4bit"
FILES: dict[str, Any] = {
    "config.json": "{}",
    "large.safetensors": Blob((3 << 20) + 77, 1),
    "small.safetensors": b"weights" * 1000,
    "plain.safetensors": b"not by Xet" * 1000,
}
LARGE = "large.safetensors"
BY_XET = ("large.safetensors", "small.safetensors")
XORB = 1 << 20


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(xet=True, xorb_size=XORB) as hub:
        hub.add_model(REPO, FILES, xet={"plain.safetensors": False})
        yield hub


def token(hub: HubServer) -> str:
    """A token for the CAS."""
    answer = fetch(f"{hub.url}/api/models/{REPO}/xet-read-token/main")
    told = json.loads(answer.body)
    assert told["casUrl"] == hub.cas_url == answer.header("X-Xet-Cas-Url")
    assert answer.header("X-Xet-Access-Token") == told["accessToken"]
    assert answer.header("X-Xet-Token-Expiration") == str(told["exp"])
    return str(told["accessToken"])


def reconstruction(hub: HubServer, path: str = LARGE, range: str | None = None, version: str = "v1") -> Answer:
    return fetch(
        f"{hub.cas_url}/{version}/reconstructions/{hub.file(REPO, path).xet_hash}", token=token(hub), range=range
    )


def rebuilt(plan: dict[str, Any]) -> bytes:
    """The bytes that a reconstruction tells of, put together by the format's rules."""
    out = b""
    for term in plan["terms"]:
        (part,) = plan["fetch_info"][term["hash"]]
        assert part["range"] == term["range"]
        answer = fetch(part["url"], range=f"bytes={part['url_range']['start']}-{part['url_range']['end']}")
        assert answer.status == 206
        data, packed = b"", answer.body
        while packed:
            length = int.from_bytes(packed[1:4], "little")
            assert packed[0] == packed[4] == 0 and packed[5:8] == packed[1:4]
            data, packed = data + packed[8 : 8 + length], packed[8 + length :]
        assert len(data) == term["unpacked_length"]
        out += data
    return out[plan["offset_into_first_range"] :]


def test_the_real_hf_fetches_from_it(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    hf(hub, tmp_path / "cache", "download", REPO, "--local-dir", str(folder), HF_HUB_DISABLE_XET="0", HF_TOKEN=TOKEN)
    for path in FILES:
        assert (folder / path).read_bytes() == hub.content(REPO, path), path
    assert {record.file for record in hub.requests("xorb", status=206)} == set(BY_XET)
    assert {record.file for record in hub.requests("cdn")} == {"plain.safetensors"}
    assert len(hub.requests("reconstruction", status=200)) == len(BY_XET)
    assert hub.requests("telemetry") == []
    assert hub.bytes_sent(LARGE) > FILES[LARGE].size
    # The person's token went to the Hub and nowhere else.
    assert hub.requests("xet-token")[0].authorization == f"Bearer {TOKEN}"
    for record in hub.requests("cas"):
        assert TOKEN not in f"{record.target} {record.headers}"


def test_hf_believes_what_it_gets(hub: HubServer, tmp_path: Path) -> None:
    """Why nobody may rely on Xet for the truth: the size is right, and that is all that is looked at."""
    flip = hub.fault(Fault.flip(8), "xorb", LARGE)
    hf(hub, tmp_path / "cache", "download", REPO, LARGE, "--local-dir", str(tmp_path), HF_HUB_DISABLE_XET="0")
    assert flip.hits
    wrong, right = (tmp_path / LARGE).read_bytes(), hub.content(REPO, LARGE)
    assert len(wrong) == len(right)
    assert wrong != right


def test_telemetry_is_heard_when_it_is_posted(hub: HubServer, tmp_path: Path) -> None:
    more = {"HF_HUB_DISABLE_XET": "0", "HF_HUB_DISABLE_TELEMETRY": "0"}
    hf(hub, tmp_path / "cache", "download", REPO, LARGE, "--local-dir", str(tmp_path), **more)
    assert hub.requests("telemetry", method="POST")


def test_what_the_hub_says_of_a_file(hub: HubServer) -> None:
    tree = json.loads(fetch(f"{hub.url}/api/models/{REPO}/tree/main?recursive=true").body)
    assert {entry["path"]: entry.get("xetHash") for entry in tree} == {
        path: hub.file(REPO, path).xet_hash if path in BY_XET else None for path in FILES
    }
    answer = fetch(f"{hub.url}/{REPO}/resolve/main/{LARGE}")
    assert answer.header("X-Xet-Hash") == hub.file(REPO, LARGE).xet_hash
    commit = answer.header("X-Repo-Commit")
    assert answer.header("Link") == f'<{hub.url}/api/models/{REPO}/xet-read-token/{commit}>; rel="xet-auth"'
    assert fetch(f"{hub.url}/{REPO}/resolve/main/plain.safetensors").header("X-Xet-Hash") is None


def test_a_hub_without_xet_says_nothing_of_it() -> None:
    with HubServer() as hub:
        hub.add_model(REPO, {LARGE: b"weights" * 1000})
        assert fetch(f"{hub.url}/{REPO}/resolve/main/{LARGE}").header("X-Xet-Hash") is None
        assert fetch(f"{hub.url}/api/models/{REPO}/xet-read-token/main").status == 404
        assert b"xetHash" not in fetch(f"{hub.url}/api/models/{REPO}/tree/main").body


@pytest.mark.parametrize("span", [None, (0, 1), (XORB - 1, XORB + 1), (70_000, 3 << 20), (3 << 20, (3 << 20) + 77)])
def test_a_reconstruction_holds_the_range(hub: HubServer, span: tuple[int, int] | None) -> None:
    answer = reconstruction(hub, range=f"bytes={span[0]}-{span[1] - 1}" if span else None)
    start, stop = span or (0, FILES[LARGE].size)
    assert rebuilt(json.loads(answer.body))[: stop - start] == hub.content(REPO, LARGE, start, stop)


def test_who_may_ask(hub: HubServer) -> None:
    hub.add_model("org/gated", {LARGE: b"gated" * 1000}, gated=True)
    assert fetch(f"{hub.url}/api/models/org/gated/xet-read-token/main", token=TOKEN).status == 403
    assert fetch(f"{hub.url}/api/models/{REPO}/xet-read-token/nope").status == 404
    url = f"{hub.cas_url}/v1/reconstructions/{hub.file(REPO, LARGE).xet_hash}"
    assert fetch(url).status == fetch(url, token=TOKEN).status == 401
    assert fetch(f"{hub.cas_url}/v1/reconstructions/{'0' * 64}", token=token(hub)).status == 404
    assert reconstruction(hub, range="bytes=99999999-").status == 416
    # As the Hub does where the newer one is not in use.
    assert reconstruction(hub, version="v2").status == 404


def test_tokens_and_addresses_expire(hub: HubServer) -> None:
    known = token(hub)
    plan = json.loads(reconstruction(hub).body)
    url = plan["fetch_info"][plan["terms"][0]["hash"]][0]["url"]
    hub.expire_urls()
    assert fetch(url).status == 403
    assert fetch(f"{hub.cas_url}/v1/reconstructions/{hub.file(REPO, LARGE).xet_hash}", token=known).status == 401
    assert rebuilt(json.loads(reconstruction(hub).body)) == hub.content(REPO, LARGE)


def test_faults_strike_there(hub: HubServer) -> None:
    def first_url() -> str:
        plan = json.loads(reconstruction(hub).body)
        return str(plan["fetch_info"][plan["terms"][0]["hash"]][0]["url"])

    hub.fault(Fault.status(503), "reconstruction", times=1)
    assert reconstruction(hub).status == 503
    hub.fault(Fault.status(500), "xet-token", times=1)
    assert fetch(f"{hub.url}/api/models/{REPO}/xet-read-token/main").status == 500
    url = first_url()
    hub.fault(Fault.expired_url(), "xorb", times=1)
    assert fetch(url).status == 403
    hub.fault(Fault.flip(100), "xorb", LARGE, times=1)
    flipped, right = fetch(url).body, fetch(url).body
    assert [at for at, (a, b) in enumerate(zip(flipped, right, strict=True)) if a != b] == [100]
    hub.fault(Fault.reset(after=1000), "xorb", times=1)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        fetch(url)
    for silence in (Fault.stall(after=1000), Fault.black_hole()):
        handle = hub.fault(silence, "cas", times=1)
        with pytest.raises(TimeoutError):
            fetch(url, timeout=0.05)
        assert handle.hits == 1
    hub.network_down("cas")
    assert not hub.is_up
    with pytest.raises(ConnectionRefusedError):
        fetch(url)
    hub.network_up()
    assert fetch(url).body == right
