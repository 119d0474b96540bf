"""Cards: what people write is shown, what attackers write is not run."""

from __future__ import annotations

import re
import time

import pytest

from mlx_manager.services.card import render_card

BASE = "https://hub.example/org/name"


def shown(text: str) -> str:
    return render_card(text, BASE)


def test_a_card_reads_as_it_was_meant() -> None:
    html = shown(
        "---\nlicense: mit\n---\n\n# Title\n\nUse `pip` & **care**.\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n\n"
        "```python\nx < 1\n```\n- [hub](https://hub.example/x?a=1&b=2)\n- ~~old~~\n"
    )
    assert "license" not in html
    for part in (
        "<h1>Title</h1>",
        "<code>pip</code> &amp; <strong>care</strong>",
        "<td>1</td>",
        "x &lt; 1",
        "<del>old</del>",
    ):
        assert part in html.replace("<s>", "<del>").replace("</s>", "</del>"), html
    assert 'href="https://hub.example/x?a=1&amp;b=2" rel="noopener noreferrer nofollow"' in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<a href='javascript:alert(1)'>x</a>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "<a href='data:text/html,x'>x</a>",
        "<svg/onload=alert(1)>",
        "<iframe src=//evil></iframe>",
        "<div style='background:url(//evil)' onclick=alert(1) id=x class=y>x</div>",
        "<form action=//evil><input name=q><button>go</button></form>",
        "<style>*{display:none}</style>",
        "<link rel=stylesheet href=//evil><meta http-equiv=refresh content=0><base href=//evil>",
        "<math><mtext></p><img src onerror=alert(1)></math>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
        # Another name of img for a browser.
        "<image src=//evil/spy.png>",
        "<img alt='<script>alert(1)</script>' src=x>",
        "![<b onclick=alert(1)>](x)",
        "<a href='vbscript:x' target=_top>x</a><video src=//evil autoplay></video><object data=//evil></object>",
        "---\nx: <script>alert(1)</script>\n---\n<scr<script>ipt>alert(1)</script>",
    ],
)
def test_nothing_is_run_or_fetched(text: str) -> None:
    html = shown(text)
    # Escaped text may say anything; what counts are real tags and what stands in them.
    tags = "".join(re.findall(r"<[^>]*>", html)).lower()
    for word in ("script", "img", "svg", "iframe", "style", "onclick", "onerror", "onload", "form", "input", "link",
                 "meta", "base ", "data:", "video", "object", "target", "class=", "id=", "//evil"):  # fmt: skip
        assert word not in tags, html


def test_of_an_image_its_words_are_left() -> None:
    assert "A cat &amp; a dog" in shown("![A cat & a dog](https://evil.example/spy.png)")
    assert "evil" not in shown("![A cat](https://evil.example/spy.png)")
    assert "logo" in shown("<img src='https://evil.example/x' alt='logo'>")


@pytest.mark.parametrize(
    ("href", "target"),
    [
        ("docs/use.md", f"{BASE}/blob/main/docs/use.md"),
        ("./LICENSE", f"{BASE}/blob/main/LICENSE"),
        ("/other/model", "https://hub.example/other/model"),
        ("//evil.example/x", "https://hub.example/evil.example/x"),
        ("#usage", f"{BASE}#usage"),
        ("mailto:a@b.example", "mailto:a@b.example"),
        ("https://x.example/", "https://x.example/"),
    ],
)
def test_where_links_lead(href: str, target: str) -> None:
    assert f'href="{target}"' in shown(f"[x]({href})")


@pytest.mark.parametrize("text", ["", "---\n", "---\nnever closed", "\0\x1b[31m", "é🤗‮", "#" * 100_000, "[" * 50_000,
                                  "*a " * 50_000, "> " * 5_000 + "x", "<div>" * 20_000, "| a " * 5_000])  # fmt: skip
def test_strange_cards_end(text: str) -> None:
    started = time.monotonic()
    assert isinstance(shown(text), str)
    assert time.monotonic() - started < 20
