"""The access token: made once, kept private, never sent where a pass will do; and what wrong ones cost."""

from __future__ import annotations

import hmac
import stat
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.errors import AccessTokenUnusable, DataDirNotWritable
from mlx_manager.services.access import (
    FILE_NAME,
    LONGEST_PASS_S,
    Access,
    Failures,
    is_here,
    make_pass,
    make_token,
    place_of,
    read_token,
)

TOKEN = "t" * 43


@pytest.fixture
def access(tmp_path: Path) -> Access:
    (tmp_path / FILE_NAME).write_text(TOKEN)
    (tmp_path / FILE_NAME).chmod(0o600)
    access = Access(tmp_path)
    access.start()
    return access


# --- the file --------------------------------------------------------------------------------------------------------


def test_it_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "data"
    assert read_token(home) is None
    token = make_token(home)
    assert len(token) >= 43
    assert make_token(home) == read_token(home) == token
    assert stat.S_IMODE((home / FILE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [path.name for path in home.iterdir()] == [FILE_NAME], "no draft is left"


def test_a_renewed_one_is_another(tmp_path: Path) -> None:
    first = make_token(tmp_path)
    second = make_token(tmp_path, renew=True)
    assert second != first
    assert read_token(tmp_path) == second
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_many_who_make_it_at_once_make_one(tmp_path: Path) -> None:
    made: list[str] = []
    makers = [threading.Thread(target=lambda: made.append(make_token(tmp_path))) for _ in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert set(made) == {read_token(tmp_path)}
    assert len(made) == 8


@pytest.mark.parametrize("text", [b"", b"short", b"x" * 31, b"two words " * 5, b"a;" * 20, b"\xff" * 40, b"a\nb" * 20])
def test_a_file_that_holds_no_token_is_told_and_not_quoted(tmp_path: Path, text: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(text)
    with pytest.raises(AccessTokenUnusable) as caught:
        read_token(tmp_path)
    assert str(tmp_path / FILE_NAME) in caught.value.detail
    assert "--renew" in caught.value.advice
    assert text.decode("latin-1").strip() not in caught.value.detail.replace(str(tmp_path), "") or not text
    assert make_token(tmp_path, renew=True), "and the advice helps"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataDirNotWritable):
        make_token(tmp_path / "file")


def test_a_token_that_somebody_chose_and_others_could_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE_NAME).write_text(TOKEN + "\n")
    (tmp_path / FILE_NAME).chmod(0o644)
    hidden: list[str] = []
    access = Access(tmp_path, hide=hidden.append)
    access.start()
    assert access.admits(TOKEN)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert "could be read by other users" in caplog.text
    assert hidden == [TOKEN]
    assert TOKEN not in caplog.text


# --- who is admitted -------------------------------------------------------------------------------------------------


def test_the_token_and_its_passes_are_admitted(access: Access) -> None:
    assert access.admits(TOKEN)
    shown = access.make_pass(60)
    assert TOKEN not in shown
    assert access.admits(shown)


@pytest.mark.parametrize("shown", ["", ".", TOKEN[:-1], TOKEN + "t", TOKEN.upper(), "0.", f".{TOKEN}", "\u0665.x", "é"])
def test_nothing_else_is(access: Access, shown: str) -> None:
    assert not access.admits(shown)


def test_a_pass_ends_and_cannot_be_made_longer(access: Access) -> None:
    shown = make_pass(TOKEN, 60, now=1000)
    assert access.admits(shown, now=1059)
    assert not access.admits(shown, now=1060)
    expires, _, mac = shown.partition(".")
    assert not access.admits(f"{int(expires) + 60}.{mac}", now=1059)
    assert not access.admits(f" {expires}.{mac}", now=1059)
    assert not access.admits(make_pass("o" * 43, 60, now=1000), now=1000), "made from another token"
    assert not access.admits(make_pass(TOKEN, LONGEST_PASS_S + 3600, now=1000), now=1000), "longer than any of ours"


@given(st.text(max_size=100) | st.from_regex(r"[0-9]{1,12}\.[0-9a-f]{64}", fullmatch=True))
def test_whatever_is_shown_is_judged_and_not_admitted(tmp_path_factory: pytest.TempPathFactory, shown: str) -> None:
    assert not Access(tmp_path_factory.getbasetemp()).admits(shown), "there is no token at all"
    home = tmp_path_factory.getbasetemp() / "guessed"
    make_token(home)
    assert not Access(home).admits(shown)


def test_a_renewal_is_noticed_with_the_next_request(access: Access, tmp_path: Path) -> None:
    told: list[str] = []
    access.on_renewed(lambda: told.append("renewed"))
    old_pass, old_cookie = access.make_pass(60), access.cookie
    assert access.admits(old_pass)
    assert told == []
    token = make_token(tmp_path, renew=True)
    assert not access.admits(old_pass)
    assert not access.admits(TOKEN)
    assert access.admits(token)
    assert access.cookie != old_cookie
    assert told == ["renewed"]


def test_without_its_file_nobody_is_admitted(access: Access, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE_NAME).unlink()
    assert not access.admits(TOKEN)
    with pytest.raises(AccessTokenUnusable):
        access.make_pass(60)
    (tmp_path / FILE_NAME).write_text("broken")
    assert not access.admits("broken")
    assert "holds no access token" in caplog.text
    assert access.admits(make_token(tmp_path, renew=True))


# --- wrong ones ------------------------------------------------------------------------------------------------------


def test_a_place_with_too_many_wrong_ones_has_to_wait(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    failures = Failures(allowed=3, window_s=60, clock=lambda: now)
    assert [failures.note("a") for _ in range(3)] == [0, 0, 0]
    now = 20.0
    assert [failures.note("a"), failures.note("a")] == [40, 40]
    assert failures.note("b") == 0, "others do not"
    now = 60.0
    assert failures.note("a") == 0, "and not for ever"
    assert len(caplog.records) == 4, "a flood does not fill the log"


def test_few_places_are_remembered() -> None:
    failures = Failures(allowed=1, clients=10)
    for number in range(1000):
        failures.note(f"10.0.{number // 250}.{number % 250}")
    assert len(failures) == 10


@pytest.mark.parametrize(
    ("address", "place", "here"),
    [
        (None, "here", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("::ffff:192.168.1.7", "192.168.1.7", False),
        ("192.168.1.7", "192.168.1.7", False),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", False),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64", False),
        ("fe80::1%eth0", "fe80::/64", False),
        ("no address", "no address", False),
    ],
)
def test_where_a_client_is(address: str | None, place: str, here: bool) -> None:
    assert place_of(address) == place
    assert is_here(place) is here


@pytest.mark.parametrize("wrong", ["", "x", "x.y", f"{'9' * 10}.{'0' * 64}", "é.é"])
def test_whatever_is_wrong_both_comparisons_are_made_and_take_their_constant_time(tmp_path: Path, wrong: str) -> None:
    access = Access(tmp_path)
    access.start()
    called: list[object] = []
    sys.setprofile(lambda frame, event, what: called.append(what) if event == "c_call" else None)
    try:
        admitted = access.admits(wrong)
    finally:
        sys.setprofile(None)
    assert not admitted
    assert called.count(hmac.compare_digest) == 2
