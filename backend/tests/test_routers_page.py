"""The page as it is served: whole, from here alone, and never half old and half new."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import DEAD_HUB, Api, ServerProcess
from mlx_manager.routers.icon import Mood, icon
from mlx_manager.routers.page import site

VIEWS = ["/", "/discover", "/downloads", "/library", "/settings", "/models/mlx-community/Qwen3-0.6B-4bit"]
WEB = Path(__file__).resolve().parents[1] / "mlx_manager" / "web"
MOST_BYTES = 60 * 1024
# Of the files as they are in the package lit-html 3.3.3; scripts/vendor.sh puts them there.
VENDORED = {
    "LICENSE": "2b66f9390afde29edfe4314daff93f01fb182e1178053e228120178987e5db75",
    "directive-helpers.js": "f7fb1154b8f72ed2cc08b05eaeed71c99270e9ad2d48620ed24688a1af4c2b62",
    "directive.js": "3344c4f41c69cd0701d3937e8f9ef90bd845614bf6456d0b8314b7c51d415b9d",
    "directives/keyed.js": "0c5ba1cb7890b36b30b841d2496e517d3eeb4d131cdd9abdce40fd50d7824514",
    "directives/live.js": "b305f9066319d838db797abd5a4d871537277e25f35332702bfce4452c020ecf",
    "directives/repeat.js": "083140026ecd8665fedd15b17769f9d516252a9f1502f1e91e6967686ee82626",
    "lit-html.js": "b878e7f95dec8a9b6e9b217faca6b6a11bad82ebc44c0caa77419ed83edd81f2",
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with ServerProcess(tmp_path_factory.mktemp("home"), DEAD_HUB) as server:
        yield server.api()


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_can_be_reloaded(api: Api, view: str) -> None:
    page = api.get(view)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["cache-control"] == "no-cache"
    assert page.body == api.get("/").body


def test_nothing_is_inline_and_nothing_from_elsewhere(api: Api) -> None:
    page = api.get("/")
    text = page.body.decode()
    assert "://" not in text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", text)
    policy = page.headers["content-security-policy"]
    for rule in ("default-src 'self'", "object-src 'none'", "require-trusted-types-for 'script'"):
        assert rule in policy
    for path in re.findall(r'(?:href|src)="([^"#][^"]*)"', text):
        assert api.get(path).status == 200, path


def test_a_file_is_kept_for_ever_and_belongs_to_one_build(api: Api) -> None:
    path = f"/page/{site().build}/app.js"
    script = api.get(path)
    assert (script.status, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert "immutable" in script.headers["cache-control"]
    assert script.body == (WEB / "app.js").read_bytes()
    packed = api.get(path, **{"Accept-Encoding": "gzip, br"})
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == script.body
    assert api.get("/page/000000000000/app.js").status == 404
    assert api.get(f"/page/{site().build}/nothing.js").status == 404
    assert api.get(f"/page/{site().build}/../page.py").status == 404


def test_who_has_the_page_is_not_sent_it_again(api: Api) -> None:
    tag = api.get("/").headers["etag"]
    again = api.get("/", **{"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    assert api.get("/", **{"If-None-Match": 'W/"another"'}).status == 200


def test_every_import_leads_to_a_file(api: Api) -> None:
    for path in WEB.rglob("*.js"):
        for target in re.findall(r'(?:from|import)\s*"(\.[^"]+)"', path.read_text()):
            found = (path.parent / target).resolve().relative_to(WEB)
            assert api.get(f"/page/{site().build}/{found.as_posix()}").status == 200, f"{path.name}: {target}"


def test_the_page_is_light() -> None:
    """All files as they are sent: gzipped, or as they are where that does not help."""
    sent = [asset.packed or asset.body for asset in (*site().assets.values(), *site().named.values())]
    assert sum(map(len, sent)) < MOST_BYTES


def test_what_others_wrote_is_unchanged() -> None:
    folder = WEB / "vendor" / "lit-html-3.3.3"
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found == VENDORED


def test_the_icon_fills_up(api: Api) -> None:
    drawn = api.get("/favicon.svg?progress=40&mood=active")
    assert (drawn.status, drawn.headers["content-type"]) == (200, "image/svg+xml")
    assert drawn.body.decode() == icon(40, Mood.ACTIVE)
    assert len({icon(progress, mood) for progress in (0, 40, 100) for mood in (Mood.ACTIVE, Mood.TROUBLE)}) == 6
    assert api.get("/favicon.svg?progress=101").status == 422
    assert api.get("/favicon.svg?mood=%3Cscript%3E").status == 422
    assert api.get("/favicon.ico").status == 200


def test_the_manifest_names_icons_that_are_there(api: Api) -> None:
    manifest = api.get("/manifest.webmanifest")
    assert manifest.headers["content-type"] == "application/manifest+json"
    assert [api.get(one["src"]).status for one in manifest.json["icons"]] == [200, 200]
