"""The way to the Hub, one step after the other, so that it can be told which of them fails."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from mlx_manager.domain.diagnosis import Finding, note, skipped, well, wrong

TLS_ADVICE = (
    "If a company's proxy or a virus scanner replaces certificates, add its certificate authority to the system's "
    "store or name the file in SSL_CERT_FILE."
)
PROXY_ADVICE = "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY, and the proxy's user and password."
FIRST_TRIES_S = 2.0
"""All addresses but the last get so long: behind a broken IPv6 route half of them swallow every packet."""


class HubWay:
    """``endpoint``: the Hub's URL; ``proxy``: the URL of the proxy on the way, with its password, or None. ``trust``:
    whose certificates are believed. Each step has ``timeout_s`` seconds; they are called in their order."""

    def __init__(self, endpoint: str, proxy: str | None, trust: ssl.SSLContext, timeout_s: float) -> None:
        self._hub = urlsplit(endpoint)
        self._proxy = urlsplit(proxy) if proxy else None
        self._trust = trust
        self._timeout_s = timeout_s
        self._addresses: list[str] = []
        self._socket: socket.socket | None = None

    def name(self) -> Finding:
        """Look up the name of whoever is connected to: the Hub, or the proxy."""
        host, port = self._first
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a valid name"
            advice = "Check the network, and the name in HF_ENDPOINT."
            return wrong(f"{self._who} cannot be found: {reason}", PROXY_ADVICE if self._proxy else advice)
        self._addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if self._addresses == [host]:
            return well(f"{self._who} is an address itself")
        more = f" and {len(self._addresses) - 1} more" if len(self._addresses) > 1 else ""
        return well(f"{self._who} is {self._addresses[0]}{more}")

    def connection(self) -> Finding:
        """Connect to the first of the addresses that answers."""
        silent: list[str] = []
        port = self._first[1]
        for address in self._addresses:
            last = address == self._addresses[-1]
            limit = self._timeout_s if last else min(FIRST_TRIES_S, self._timeout_s)
            try:
                self._socket = socket.create_connection((address, port), limit)
            except TimeoutError:
                reason = f"no answer within {limit:g} s"
            except ConnectionRefusedError:
                reason = "nothing listens there"
            except OSError as error:
                reason = error.strerror or type(error).__name__
            else:
                if silent:
                    advice = (
                        "It costs a moment at each connection. Often a broken IPv6 route: ask who runs the network."
                    )
                    return note(f"{address} answers at port {port}, but not {', '.join(silent)}", advice)
                return well(f"{address} answers at port {port}")
            silent.append(address)
            if last:
                advice = PROXY_ADVICE if self._proxy else "Check the network, a firewall, and HF_ENDPOINT."
                return wrong(f"{address} port {port}: {reason}", advice)
        return wrong("there is no address to connect to")

    def tls(self) -> Finding:
        """Agree on TLS with the Hub, through the proxy where there is one."""
        sock, self._socket = self._socket, None
        if sock is None:
            return skipped("there is no connection")
        with contextlib.closing(sock):
            if self._hub.scheme != "https":
                return self._unencrypted()
            sock.settimeout(self._timeout_s)
            if self._proxy is not None:
                if not self._proxy.scheme.startswith("http"):
                    return skipped("a SOCKS proxy is on the way")
                if refusal := self._through_proxy(sock):
                    return refusal
            return self._agree(sock)

    def _unencrypted(self) -> Finding:
        if (self._hub.hostname or "").startswith("127.") or self._hub.hostname in ("localhost", "::1"):
            return well("not used, nor needed: the Hub's address is on this machine")
        advice = "Use an address that begins with https in HF_ENDPOINT."
        return note("not used: whoever is on the way can read along, the token too", advice)

    @property
    def _first(self) -> tuple[str, int]:
        """Host and port that are connected to."""
        url = self._proxy or self._hub
        return url.hostname or "", url.port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(url.scheme, 80)

    @property
    def _who(self) -> str:
        return f"the proxy {self._first[0]}" if self._proxy else self._first[0]

    def _through_proxy(self, sock: socket.socket) -> Finding | None:
        """Have the proxy make a way to the Hub; what it refused."""
        assert self._proxy is not None
        target = f"{self._hub.hostname}:{self._hub.port or 443}"
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
        if self._proxy.username is not None:
            login = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
            head += f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n"
        sock.sendall(f"{head}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer and len(answer) < 65536:
            if not (data := sock.recv(4096)):
                break
            answer += data
        words = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        status = words[1] if len(words) > 1 else "nothing"
        if status == "200":
            return None
        return wrong(f"{self._who} does not let us through to {target}: it answers {status}", PROXY_ADVICE)

    def _agree(self, sock: socket.socket) -> Finding:
        host = self._hub.hostname or ""
        try:
            with self._trust.wrap_socket(sock, server_hostname=host) as wrapped:
                version, certificate = wrapped.version() or "TLS", wrapped.getpeercert() or {}
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message or "it cannot be verified"
            return wrong(f"the certificate of {host} is not trusted: {reason}", TLS_ADVICE)
        except ssl.SSLError as error:
            return wrong(f"{host} does not agree on TLS: {error.reason or 'it ended the talk'}", TLS_ADVICE)
        except TimeoutError:
            return wrong(f"{host} was silent for {self._timeout_s:g} s while agreeing on TLS", TLS_ADVICE)
        ends = certificate.get("notAfter")
        until = ""
        if isinstance(ends, str):
            until = f", certificate until {datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC):%Y-%m-%d}"
        return well(f"{version}{until}")
