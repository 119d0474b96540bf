"""The way to the bytes: the network that goes, proxies, TLS."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from fakes.hub_server import Fault
from fakes.proxy import LoopbackProxy
from faults.machine import Need
from faults.scene import BIG, Scene
from faults.table import row

MIB = 1 << 20


@row("The network is gone for 60 s in the middle", again=12 * MIB, lasts_s=100)
def network_gone(scene: Scene) -> None:
    scene.model(24 * MIB, shards=3)
    slow = scene.slow(8e6)
    scene.serve()
    scene.ask()
    scene.sent(4 * MIB)
    scene.hub.outage(60)
    scene.hub.wait_for(lambda: not scene.hub.is_up)
    scene.knowable()
    scene.told("retrying", "reset|the connection was refused")
    scene.hub.wait_for(lambda: scene.hub.is_up, timeout=90)
    scene.then("The network is back after 60 s.")
    slow.clear()
    scene.completed()


@row("The CDN's address leads nowhere: the connection is refused; then it listens again")
def cdn_refused(scene: Scene) -> None:
    scene.model(4 * MIB)
    scene.hub.network_down("cdn")
    scene.serve()
    scene.ask()
    scene.hub.wait_for(1, where="resolve", path=BIG)
    scene.knowable()
    scene.told("retrying", "the connection was refused")
    scene.hub.network_up("cdn")
    scene.then("The CDN listens again.")
    scene.completed()


@row("The proxy dies while bytes come, and another takes its place", again=8 * MIB)
def proxy_dies(scene: Scene) -> None:
    scene.model(8 * MIB)
    slow = scene.slow(4e6)
    proxy = LoopbackProxy()
    with proxy:
        scene.serve(http_proxy=f"http://{proxy.address}", no_proxy="")
        scene.ask()
        scene.sent(2 * MIB)
    scene.knowable()
    scene.told("retrying", "the proxy .* refused the connection")
    slow.clear()
    scene.enter(LoopbackProxy(port=int(proxy.address.rpartition(":")[2])))
    scene.then("A proxy is there again.")
    scene.completed()


@row("The proxy wants a user and a password (407)")
def proxy_login(scene: Scene) -> None:
    scene.model()
    proxy = scene.enter(LoopbackProxy(login="me:secret"))
    scene.serve(http_proxy=f"http://{proxy.address}")
    scene.ask()
    event = scene.told("retrying", "wants a user and a password")
    assert event.data["advice"], event.data
    scene.move("cancel")
    scene.then("The person cancels, to start the server with the right proxy.")
    scene.outcome.end = "cancelled"


@row("The Hub's TLS certificate is not one that this machine trusts", needs=[Need.OPENSSL])
def untrusted_certificate(scene: Scene) -> None:
    _tls(scene, trusted=False, name="IP:127.0.0.1")
    event = scene.told("retrying", "certificate")
    assert event.data["advice"], event.data
    scene.move("cancel")
    scene.then("The person cancels.")
    scene.outcome.end = "cancelled"


@row("The Hub's TLS certificate is for another name", needs=[Need.OPENSSL])
def wrong_name(scene: Scene) -> None:
    _tls(scene, trusted=True, name="DNS:other.test")
    scene.told("retrying", "certificate")
    scene.move("cancel")
    scene.then("The person cancels.")
    scene.outcome.end = "cancelled"


@row("A trusted certificate in front, and one of the CDN that is not", needs=[Need.OPENSSL])
def untrusted_cdn(scene: Scene) -> None:
    _tls(scene, trusted=True, name="IP:127.0.0.1", cdn_host="localhost")
    event = scene.told("retrying", "certificate")
    assert "SSL_CERT_FILE" in event.data["advice"], event.data
    scene.move("cancel")
    scene.then("The person cancels.")
    scene.outcome.end = "cancelled"


def _tls(scene: Scene, *, trusted: bool, name: str, cdn_host: str = "127.0.0.1") -> None:
    key, cert = scene.root / "key.pem", scene.root / "cert.pem"
    make_certificate(key, cert, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    scene.open_hub(tls=context, cdn_host=cdn_host)
    scene.model()
    scene.serve(**({"SSL_CERT_FILE": str(cert)} if trusted else {}))
    scene.ask()


def make_certificate(key: Path, cert: Path, name: str) -> None:
    """A certificate that vouches for itself. ``name``: as openssl writes it, `IP:…` or `DNS:…`."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hub"
    names = ["-addext", f"subjectAltName={name}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)


@row("The CDN's connections break before a byte came, four times in a row", lasts_s=10)
def drops(scene: Scene) -> None:
    scene.model(4 * MIB)
    dropped = scene.hub.fault(Fault.drop(), where="cdn", path=BIG, times=4)
    scene.serve()
    scene.ask()
    scene.struck(dropped)
    scene.told("retrying", "reset|closed|broke")
    scene.completed()
