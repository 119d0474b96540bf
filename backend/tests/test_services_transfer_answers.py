"""What is made of an answer before a byte of it is written: one table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from mlx_manager.errors import (
    AccessDenied,
    FileGone,
    GatedModel,
    MlxManagerError,
    SourceBusy,
    SourceChanged,
    SourceRateLimited,
    SourceRefused,
    SourceRejected,
    SourceTrouble,
    TokenMissing,
    TokenRejected,
)
from mlx_manager.services.transfer.answers import (
    Range,
    Redirect,
    Refusal,
    Verdict,
    Whole,
    check_etag,
    judge,
    retry_after,
)
from mlx_manager.services.transfer.source import MAX_REDIRECTS, Address, Source
from mlx_manager.services.transfer.wire import Head

HUB = Address("https://hub.test/org/model/resolve/main/a.bin")
CDN = Address("https://user:secret@cdn.test/a?Signature=secret", signed=True)
SIZE = 1000
SHA = "a" * 64


def head(status: int, **headers: str) -> Head:
    return Head(status, {name.replace("_", "-"): value for name, value in headers.items()})


def ask(answer: Head, address: Address = HUB, wanted: tuple[int, int] = (100, 200)) -> Verdict:
    return judge(answer, address, wanted, SIZE)


@pytest.mark.parametrize(
    ("answer", "wanted", "verdict"),
    [
        (head(206, content_range="bytes 100-199/1000"), (100, 200), Range()),
        (head(206, content_range="bytes 100-199/*"), (100, 200), Range()),
        (head(206, content_range="bytes 0-999/1000"), (0, 1000), Range()),
        (head(200, content_length="1000"), (100, 200), Whole()),
        (head(200), (100, 200), Whole()),
        (head(200, content_length="1000"), (0, 1000), Range()),
        (head(200, content_length="1000", content_encoding="identity"), (0, 1000), Range()),
    ],
)
def test_bytes_come(answer: Head, wanted: tuple[int, int], verdict: Verdict) -> None:
    assert ask(answer, wanted=wanted) == verdict


@pytest.mark.parametrize(
    "answer",
    [
        head(206),
        head(206, content_range="bytes 100-199"),
        head(206, content_range="bytes 99-199/1000"),
        head(206, content_range="bytes 100-198/1000"),
        head(206, content_range="bytes 100-200/1000"),
        head(206, content_range="bytes 100-199/1001"),
        head(206, content_range="items 100-199/1000"),
        head(206, content_range="bytes 100-199/" + "9" * 5000),
        head(206, content_range="bytes 100-199/1000", content_encoding="gzip"),
        head(200, content_length="999"),
        head(200, content_length="1000", content_encoding="br"),
        head(206, content_range="bytes ¹00-199/1000"),
    ],
)
def test_the_wrong_bytes_are_not_taken_and_a_fresh_address_is_asked_for(answer: Head) -> None:
    verdict = ask(answer)
    assert isinstance(verdict, Refusal)
    assert isinstance(verdict.error, SourceRefused)
    assert verdict.resolve_again


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (head(401), TokenMissing),
        (head(401, x_error_code="RepoNotFound"), FileGone),
        (head(404, x_error_code="RepoNotFound"), FileGone),
        (head(401, x_error_code="GatedRepo"), GatedModel),
        (head(403, x_error_code="GatedRepo"), GatedModel),
        (head(403), AccessDenied),
        (head(404), FileGone),
        (head(404, x_error_code="EntryNotFound"), FileGone),
        (head(410), FileGone),
        (head(416, content_range="bytes */50"), SourceChanged),
        (head(400), SourceRejected),
        (head(418), SourceRejected),
        (head(204), SourceRejected),
        (head(304), SourceRejected),
    ],
)
def test_no_from_the_hub_is_final(answer: Head, error: type[MlxManagerError]) -> None:
    verdict = ask(answer)
    assert isinstance(verdict, Refusal)
    assert type(verdict.error) is error
    assert not verdict.error.transient


def test_a_token_is_called_wrong_only_when_one_was_sent() -> None:
    """Of a model that was deleted the Hub says 401 to a stranger: he was told to make a new token, and had none."""
    verdict = ask(head(401, x_error_code="RepoNotFound"))
    assert isinstance(verdict, Refusal)
    assert "has no such model any more" in verdict.error.detail
    assert "nobody is logged in" in verdict.error.detail
    verdict = ask(head(401), Address(HUB.url, with_token=True))
    assert isinstance(verdict, Refusal)
    assert type(verdict.error) is TokenRejected


def test_a_range_that_the_cdn_will_not_give_is_not_called_an_expired_address() -> None:
    verdict = ask(head(416), CDN)
    assert isinstance(verdict, Refusal)
    assert verdict.resolve_again
    assert verdict.error.detail == "cdn.test will not give bytes 100-199 (416)."


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416])
def test_no_from_a_signed_address_means_a_new_one_is_needed(status: int) -> None:
    verdict = ask(head(status), CDN)
    assert isinstance(verdict, Refusal)
    assert type(verdict.error) is SourceRefused
    assert verdict.resolve_again
    assert "secret" not in verdict.error.detail


def test_a_mirror_that_sends_on_to_the_hub_passes_the_hubs_reason_on() -> None:
    verdict = ask(head(401, x_error_code="GatedRepo"), CDN)
    assert isinstance(verdict, Refusal)
    assert type(verdict.error) is GatedModel


def test_a_range_that_is_refused_though_the_size_is_right_may_pass() -> None:
    for answer in (head(416), head(416, content_range="bytes */1000")):
        verdict = ask(answer)
        assert isinstance(verdict, Refusal)
        assert type(verdict.error) is SourceRefused


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599])
def test_a_servers_trouble_passes(status: int) -> None:
    for address in (HUB, CDN):
        verdict = ask(head(status), address)
        assert isinstance(verdict, Refusal)
        assert type(verdict.error) is (SourceBusy if status == 503 else SourceTrouble)
        assert verdict.resolve_again is address.signed


def test_a_rate_limit_says_how_long() -> None:
    for answer, wait in (
        (head(429, retry_after="7"), 7.0),
        (head(503, retry_after="7"), 7.0),
        (head(429), None),
        (head(429, ratelimit='"api";r=0;t=42'), 42.0),
    ):
        verdict = ask(answer)
        assert isinstance(verdict, Refusal)
        assert isinstance(verdict.error, SourceRateLimited)
        assert verdict.error.retry_after_s == wait


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 500, 86_400.0),
        ("²", None),
        ("soon", None),
        ("-5", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("Mon, 01 Jan 0001 00:00:00 -0000", 0.0),
        ("", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_as_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(90, abs=3)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://cdn.test/a?x=1&y=%20z", "https://cdn.test/a?x=1&y=%20z"),
        ("/other", "https://hub.test/other"),
        ("//cdn.test/a", "https://cdn.test/a"),
        ("?again=1", "https://hub.test/org/model/resolve/main/a.bin?again=1"),
        ("https://cdn.test/a b", "https://cdn.test/a%20b"),
        ("https://cdn.test/modèle".encode().decode("latin-1"), "https://cdn.test/mod%C3%A8le"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(location: str, url: str, status: int) -> None:
    assert ask(head(status, location=location)) == Redirect(url)


@pytest.mark.parametrize(
    "location", ["", "ftp://cdn.test/a", "file:///etc/passwd", "https://", HUB.url, "https://[bad", "https://a:b/"]
)
def test_a_redirect_to_nowhere_is_not(location: str) -> None:
    verdict = ask(head(302, location=location))
    assert isinstance(verdict, Refusal)
    assert type(verdict.error) is SourceRefused


def test_a_redirect_out_of_tls_is_never_followed() -> None:
    verdict = ask(head(302, location="http://cdn.test/a"))
    assert isinstance(verdict, Refusal)
    assert type(verdict.error) is SourceRejected


@pytest.mark.parametrize(
    ("answer", "changed"),
    [
        (head(302, x_linked_etag=f'"{SHA}"', etag='"other"'), False),
        (head(302, x_linked_etag='"' + "b" * 64 + '"'), True),
        (head(200, etag=f'W/"{SHA}"'), False),
        (head(200, etag='"' + "b" * 64 + '"'), True),
        (head(200, etag='"of-another-kind"'), False),
        (head(200), False),
    ],
)
def test_the_hub_names_the_content(answer: Head, changed: bool) -> None:
    assert (check_etag(answer, SHA) is not None) is changed


def test_the_token_is_for_the_hub_alone() -> None:
    source = Source(HUB.url, lambda url: "hf_secret")
    assert "Authorization: Bearer hf_secret" in source.headers()
    assert source.follow(source.address, "https://hub.test/api/resolve-cache/a")
    assert "Authorization: Bearer hf_secret" in source.headers()
    for elsewhere in ("https://cdn.test/a", "https://hub.test:8443/a", "https://hub.test.evil.test/a"):
        assert source.follow(source.address, elsewhere)
        assert not any("hf_secret" in line for line in source.headers())


def test_redirects_are_counted_until_bytes_come() -> None:
    source = Source(HUB.url, lambda url: None)
    for n in range(MAX_REDIRECTS):
        assert source.follow(source.address, f"https://cdn.test/{n}")
    assert not source.follow(source.address, "https://cdn.test/last")
    assert source.address.answered('"etag"')
    assert source.follow(source.address, "https://cdn.test/moved")


def test_an_answer_from_an_address_that_was_given_up_moves_nothing() -> None:
    source = Source(HUB.url, lambda url: None)
    source.follow(source.address, "https://cdn.test/old")
    old = source.address
    source.resolve_again(old)
    fresh = source.address
    source.resolve_again(old)
    assert source.follow(old, "https://cdn.test/elsewhere")
    assert source.address is fresh
    assert fresh.url == HUB.url


def test_an_etag_holds_for_one_address() -> None:
    address = Address(HUB.url)
    seen = [address.resolved, address.answered(""), address.resolved]
    assert seen == [False, True, True]
    assert [address.answered(etag) for etag in ('"one"', "", '"one"', '"two"')] == [True, True, True, False]
