"""A model's card: Markdown that anybody may have written, made into HTML that may be shown."""

from __future__ import annotations

import re

import nh3
from markdown_it import MarkdownIt

LONGEST = 400_000
_FRONT_MATTER = re.compile(r"\A---\s*\n.*?\n---\s*(?:\n|\Z)", re.DOTALL)
_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_ALT = re.compile(r"""\balt\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
# No image: each would tell a stranger that this card is read here. No form, no style, no frame.
_TAGS = {
    "a", "abbr", "b", "blockquote", "br", "center", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h1",
    "h2", "h3", "h4", "h5", "h6", "hr", "i", "kbd", "li", "ol", "p", "pre", "q", "s", "samp", "small", "span",
    "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul",
}  # fmt: skip
_ATTRIBUTES = {"a": {"href", "title"}, "th": {"align", "colspan", "rowspan"}, "td": {"align", "colspan", "rowspan"}}
_SCHEMES = {"http", "https", "mailto"}
_REL = "noopener noreferrer nofollow"


def render_card(text: str, base_url: str) -> str:
    """HTML without scripts, styles, images and forms; links lead to http, https and mail addresses alone, relative ones
    below ``base_url``. Of an image its alternative text is left. Blocks; a card of 400 kB takes about a second."""
    body = _FRONT_MATTER.sub("", text[:LONGEST], count=1)
    html = _IMAGE.sub(_alternative, MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(body))
    cleaned = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        link_rel=_REL,
        clean_content_tags={"script", "style"},
    )
    return _absolute(cleaned, base_url)


def _alternative(image: re.Match[str]) -> str:
    found = _ALT.search(image[0])
    # Still escaped as it stood in the attribute, and cleaned after this.
    return (found[1] or found[2] or "") if found else ""


def _absolute(html: str, base_url: str) -> str:
    """Links inside of the repository, and to the card's own headings, which have no names here."""

    def target(found: re.Match[str]) -> str:
        href = found[1]
        if re.match(r"[a-z]+:", href, re.IGNORECASE):
            return found[0]
        if href.startswith(("#", "?")):
            return f'href="{base_url}{href}"'
        if href.startswith("/"):
            origin = "/".join(base_url.split("/")[:3])
            return f'href="{origin}/{href.lstrip("/")}"'
        return f'href="{base_url}/blob/main/{href.removeprefix("./")}"'

    return re.sub(r'href="([^"]*)"', target, html)
