"""The log: lines that can be followed, and no secret in any of them, whatever way it came."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_manager.errors import DataDirNotWritable
from mlx_manager.logs import FILE_ONLY, HIDDEN, CalmStreamHandler, Redactor, logging_to

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
PLAIN_SECRET = "corporate-token-0815"
SIGNED = (
    "https://cdn.example/repo/ab12?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAEXAMPLE%2F2026"
    "&X-Amz-Signature=deadbeefcafe&response-content-disposition=inline"
)
CLOUDFRONT = "https://cdn.example/x?Expires=1763900000&Policy=eyJTdGF0ZW1lbnQi&Signature=QmFzZTY0~&Key-Pair-Id=K2FPYV99"

logger = logging.getLogger("mlx_manager.somewhere")


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    made.hide(PLAIN_SECRET)
    return made


@pytest.fixture
def log(tmp_path: Path, redactor: Redactor) -> Iterator[Path]:
    file = tmp_path / "logs" / "mlx-manager.log"
    with logging_to(level="DEBUG", file=file, stderr=False, redactor=redactor):
        yield file


def test_a_line_has_time_level_task_and_message(log: Path) -> None:
    logger.info("Accepted %s.", "org/model", extra={"task_id": "3f2a9c"})
    logger.warning("No task here.")
    first, second = log.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO    3f2a9c Accepted org/model\.", first)
    assert second.endswith("WARNING - No task here.")


def test_a_hostile_name_cannot_write_lines_of_its_own(log: Path) -> None:
    logger.info("File %s begun.", "a\n2026-01-01 00:00:00.000 INFO    - All is verified.\x1b[2J\u2028x")
    (line,) = log.read_text().splitlines()
    assert "\\n2026-01-01" in line
    assert "\\x1b[2J" in line


def test_neither_can_a_hostile_task_id_or_what_an_error_says(log: Path) -> None:
    forged = "x\n2026-01-01 00:00:00.000 INFO    - All is verified.\x1b[2J"
    logger.info("Begun.", extra={"task_id": forged})
    try:
        raise ValueError("\x1b[2J\r half a pair: \ud800")
    except ValueError:
        logger.exception("Failed.")
    text = log.read_text()
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01")]
    assert "\x1b" not in text
    assert "half a pair: \\ud800" in text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"using {TOKEN} now", TOKEN),
        (f"token={PLAIN_SECRET}", PLAIN_SECRET),
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("{'authorization': 'Bearer abcdef0123456789', 'accept': '*/*'}", "abcdef0123456789"),
        ("[(b'authorization', b'Bearer abcdef0123456789')]", "abcdef0123456789"),
        ('{"Authorization": "Basic dXNlcjpwYXNz"}', "dXNlcjpwYXNz"),
        ("proxy-authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("Cookie: session=abc; token=def", "def"),
        ("X-Xet-Access-Token: eyJhbGciOi", "eyJhbGciOi"),
        ('{"accessToken": "eyJhbGciOi", "exp": 1}', "eyJhbGciOi"),
        (SIGNED, "deadbeefcafe"),
        (SIGNED, "AKIAEXAMPLE"),
        (CLOUDFRONT, "QmFzZTY0~"),
        (CLOUDFRONT, "eyJTdGF0ZW1lbnQi"),
        (CLOUDFRONT, "K2FPYV99"),
        ("https://storage.example/x?X-Goog-Signature=00ff&y=1", "00ff"),
        ("proxy http://me:s3cret@proxy.example:3128 refused", "s3cret"),
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_secret_never_passes(text: str, secret: str, form: str, tmp_path: Path, redactor: Redactor) -> None:
    file = tmp_path / "log"
    with logging_to(level="DEBUG", form=form, file=file, stderr=False, redactor=redactor):
        logger.info(text)
        logger.info("as an argument: %s", text)
        logger.info("as a repr: %r", {"x": text})
        logging.getLogger("some.library").error("from elsewhere: %s", text)
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("as an exception")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn_explicit(text, UserWarning, "somewhere.py", 1)
    said = file.read_text()
    assert secret not in said
    assert said.count(HIDDEN) >= 6
    assert "as an exception" in said


def test_what_is_no_secret_stays(log: Path) -> None:
    harmless = (
        "hf_client asked https://huggingface.co/api/models/org/model?blobs=true (hf_transfer, hf_hub_download); "
        "authorization failed; pull org/model@main"
    )
    logger.info(harmless)
    assert harmless in log.read_text()


def test_json_lines(tmp_path: Path, redactor: Redactor) -> None:
    file = tmp_path / "log"
    with logging_to(form="json", file=file, stderr=False, redactor=redactor):
        logger.info('Said "%s".', "ü\n", extra={"task_id": "3f2a9c"})
        try:
            raise ValueError("why")
        except ValueError:
            logger.exception("Broken.")
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert first["message"] == 'Said "ü\n".'
    assert (first["task_id"], first["level"], first["logger"]) == ("3f2a9c", "INFO", "mlx_manager.somewhere")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert "traceback" not in first
    assert second["task_id"] is None
    assert second["traceback"].endswith("ValueError: why")


def test_debug_lines_are_written_on_request_only(tmp_path: Path, redactor: Redactor) -> None:
    file = tmp_path / "log"
    with logging_to(level="INFO", file=file, stderr=False, redactor=redactor):
        logger.debug("hidden")
        logging.getLogger("uvicorn.error").info("hidden")
        logging.getLogger("httpcore2").info("hidden")
        logging.getLogger("uvicorn.error").error("shown")
    with logging_to(level="DEBUG", file=file, stderr=False, redactor=redactor):
        logger.debug("seen")
    assert [line.rsplit(" ", 1)[1] for line in file.read_text().splitlines()] == ["shown", "seen"]


def test_stderr_gets_the_same_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path, redactor: Redactor) -> None:
    file = tmp_path / "log"
    with logging_to(file=file, redactor=redactor):
        logger.info("Here: %s", TOKEN)
    assert capsys.readouterr().err == file.read_text()


def test_afterwards_all_is_as_before(tmp_path: Path, redactor: Redactor) -> None:
    root, ours = logging.getLogger(), logging.getLogger("mlx_manager")
    before = (list(root.handlers), root.level, ours.level)
    file = tmp_path / "log"
    with logging_to(level="DEBUG", file=file, redactor=redactor):
        assert ours.level == logging.DEBUG
    assert (list(root.handlers), root.level, ours.level) == before
    logger.error("after")
    assert file.read_text() == ""


def test_the_file_begins_anew_before_it_fills_the_disk(tmp_path: Path, redactor: Redactor) -> None:
    file = tmp_path / "log"
    for _ in range(5):
        with file.open("a") as almost_full:
            almost_full.write("x" * (4_999_000 - almost_full.tell()))
        with logging_to(file=file, stderr=False, redactor=redactor):
            for _ in range(10):
                logger.info("y" * 200)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 3
    assert max(sizes) <= 5_000_000


def test_a_log_that_cannot_be_made_is_a_clear_error(tmp_path: Path, redactor: Redactor) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with (
        pytest.raises(DataDirNotWritable, match="log"),
        logging_to(file=tmp_path / "logs" / "mlx-manager.log", redactor=redactor),
    ):
        pass


def test_a_line_that_cannot_be_written_is_told_once_and_without_its_text(
    monkeypatch: pytest.MonkeyPatch, redactor: Redactor
) -> None:
    terminal = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        with logging_to(redactor=redactor):
            (handler,) = (one for one in logging.getLogger().handlers if isinstance(one, CalmStreamHandler))
            # Not by a logger: the test runner's own handler takes a wrong argument for a failed test.
            for message in ("%d files with %s", "%d files with %s", "%s, then %s"):
                record = logging.makeLogRecord({"msg": message, "args": ("all is well", TOKEN)})
                handler.handle(record)
    said = terminal.getvalue().splitlines()
    assert len(said) == 2
    assert "could not be written (TypeError)" in said[0]
    assert said[1].endswith(f"all is well, then hf_{HIDDEN}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is known to Linux alone")
def test_a_log_without_room_does_not_hide_what_went_wrong(
    redactor: Redactor, capsys: pytest.CaptureFixture[str]
) -> None:
    def goes_wrong() -> None:
        with logging_to(file=Path("/dev/full"), stderr=False, redactor=redactor):
            logger.info("No room for this.")
            raise KeyError("the real reason")

    with pytest.raises(KeyError, match="the real reason"):
        goes_wrong()
    assert "a log line could not be written (OSError: No space left on device)" in capsys.readouterr().err


def test_what_is_told_on_stderr_in_another_way_is_in_the_file_alone(
    tmp_path: Path, redactor: Redactor, capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_to(file=tmp_path / "log", stderr=True, redactor=redactor):
        logger.error("Not started.", extra=FILE_ONLY)
        logger.error("Both.")
    assert [line.rpartition(" ")[2] for line in (tmp_path / "log").read_text().splitlines()] == ["started.", "Both."]
    assert [line.rpartition(" ")[2] for line in capsys.readouterr().err.splitlines()] == ["Both."]
