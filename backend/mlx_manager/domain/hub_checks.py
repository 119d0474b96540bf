"""What is found on the way to the Hub, and what it means for the person. Facts in, findings out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlx_manager.domain import words
from mlx_manager.domain.diagnosis import Finding, note, skipped, well, wrong

USUAL_HUB = "https://huggingface.co"
CLOCK_NOTE_S = 30.0
CLOCK_WRONG_S = 300.0


@dataclass(frozen=True, slots=True)
class Way:
    """How the Hub is asked. ``proxy``: its URL without user and password, None for the direct way. ``certificates``:
    the file that was named to be believed, None for the system's own."""

    endpoint: str
    offline: bool = False
    proxy: str | None = None
    mirrors: Sequence[str] = ()
    certificates: str | None = None


def judge_way(way: Way) -> Finding:
    said = way.endpoint if way.endpoint == USUAL_HUB else f"{way.endpoint} (HF_ENDPOINT)"
    if way.proxy is not None:
        said += f" through the proxy {way.proxy}"
    if way.mirrors:
        said += f"; its files also from {', '.join(way.mirrors)}"
    if way.certificates is not None:
        said += f"; certificates of {way.certificates} (SSL_CERT_FILE)"
    if way.offline:
        return note(
            f"{said}; HF_HUB_OFFLINE is set", "Nothing is asked of the Hub until it is unset.", "unset HF_HUB_OFFLINE"
        )
    return well(said)


def judge_clock(ahead_s: float, platform: str) -> Finding:
    """``ahead_s``: seconds that this machine's clock is ahead of the Hub's; the Hub tells whole seconds only."""
    off = abs(ahead_s)
    if off < CLOCK_NOTE_S:
        return well("agrees with the Hub's")
    said = f"{words.duration(off)} {'ahead of' if ahead_s > 0 else 'behind'} the Hub's"
    fix = "sudo sntp -sS time.apple.com" if platform == "Darwin" else "sudo timedatectl set-ntp true"
    if off < CLOCK_WRONG_S:
        return note(said, "Have the system set it by the network.", fix)
    return wrong(said, "Signed addresses and certificates are refused by a wrong clock. Have the system set it.", fix)


NO_TOKEN = well("none: public models only, with lower limits; `hf auth login` makes one known")
NEW_LOGIN = "Make a new one on the Hub and log in with it. Where HF_TOKEN is set, it is the one that counts."


def judge_token(status: int, whoami: Any, endpoint: str) -> Finding:
    """``status`` and the JSON that the Hub answered to /api/whoami-v2."""
    if status in (401, 403):
        return wrong("the Hub does not accept it", NEW_LOGIN, "hf auth login")
    if status != 200 or not isinstance(whoami, dict):
        return note(f"the Hub did not say whose it is ({status})", "Try again later.")
    name = str(whoami.get("name") or "somebody")
    auth = whoami.get("auth")
    token = auth.get("accessToken") if isinstance(auth, dict) else None
    role = token.get("role") if isinstance(token, dict) else None
    if role == "fineGrained" and isinstance(token, dict):
        return _judge_fine(name, token.get("fineGrained"), endpoint)
    orgs = [str(org["name"]) for org in whoami.get("orgs") or () if isinstance(org, dict) and "name" in org]
    whose = f" and those of {', '.join(orgs)}" if orgs else ""
    may = f"reads public models, its own private ones{whose}, and gated ones that granted access"
    kind = f"a {role} token" if isinstance(role, str) else "a token"
    return well(f"{kind} of {name}: {may}")


def _judge_fine(name: str, fine: Any, endpoint: str) -> Finding:
    fine = fine if isinstance(fine, dict) else {}
    scopes = []
    for scope in fine.get("scoped") or ():
        entity = scope.get("entity") if isinstance(scope, dict) else None
        if isinstance(entity, dict) and "repo.content.read" in (scope.get("permissions") or ()):
            scopes.append(str(entity.get("name") or entity.get("type")))
    said = f"a fine-grained token of {name}: reads public models"
    if scopes:
        said += f" and the private ones of {', '.join(scopes)}"
    if fine.get("canReadGatedRepos"):
        return well(f"{said}, and gated ones that granted access")
    advice = f"For gated models allow it to read them: {endpoint}/settings/tokens"
    return note(f"{said}, but no gated ones", advice)


@dataclass(frozen=True, slots=True)
class Bytes:
    """A byte that was asked of a file. ``host``: who sent it, or refused."""

    host: str
    status: int
    received: int


def judge_bytes(found: Bytes | None) -> Finding:
    if found is None:
        return skipped("the Hub named no public file to try it with")
    if found.status == 206 and found.received:
        return well(f"{found.host} sends ranges of files")
    if found.status == 200:
        advice = "A proxy or a mirror may be in the way. Downloads work, but cannot go on where they stood."
        return note(f"{found.host} sends whole files only", advice)
    return wrong(f"{found.host} refuses a public file ({found.status})", "Try again later, or through another network.")


@dataclass(frozen=True, slots=True)
class XetFacts:
    """``off``: it is switched off. ``host``: its store. ``problem``: why it does not answer."""

    off: bool = False
    first: bool = False
    offered: bool = True
    host: str = ""
    problem: str | None = None


def judge_xet(xet: XetFacts) -> Finding:
    if xet.off:
        return skipped("switched off (HF_HUB_DISABLE_XET or MLX_MANAGER_ENGINE)")
    if not xet.offered:
        return skipped("this Hub does not offer it")
    if xet.problem is None:
        return well(f"{xet.host} answers")
    if xet.first:
        advice = "Files come by ranges over HTTP instead; this makes that the first way."
        return wrong(xet.problem, advice, "unset MLX_MANAGER_ENGINE")
    return note(xet.problem, "Files come by ranges over HTTP, which is the first way here; nothing is lost.")
