"""One range on one connection: bytes from the wire to the part, watched for silence and crawling."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from mlx_manager.errors import MlxManagerError, SourceRefused
from mlx_manager.services.transfer.answers import Range, Redirect, Refusal, Verdict, Whole, check_etag, judge
from mlx_manager.services.transfer.gathering import Gathering, Stage
from mlx_manager.services.transfer.limits import TransferLimits
from mlx_manager.services.transfer.wire import Exchange, Head, WireFailure

PACE_KEPT_S = 4.0


class Owner(Protocol):
    capped: bool
    """A cap is in force: each byte is to be counted as it comes."""

    def bytes_came(self, fetch: Fetch, count: int, wanted: int) -> None:
        """``count`` bytes, of which ``wanted`` are of this fetch's range."""

    def bytes_written(self, fetch: Fetch) -> None: ...

    def fetch_ended(self, fetch: Fetch, verdict: Verdict | None, failure: WireFailure | None) -> None: ...


class Fetch:
    """The listener of an exchange. ``position`` is the next offset to write; ``[position, end)`` is still owed."""

    def __init__(self, file: Gathering, start: int, end: int, owner: Owner, limits: TransferLimits) -> None:
        self.file = file
        self.address = file.source.address
        self.start = self.position = start
        self.end = end
        self.exchange: Exchange | None = None
        self.verdict: Verdict | None = None
        self.disk_error: OSError | None = None
        self.received = 0
        self._owner = owner
        self._limits = limits
        self._most_held = limits.write_bytes
        self._skip_until = 0
        self._offset = start
        self._chunks: list[bytes] = []
        self._held = 0
        self._fresh = 0
        self.began_at = self._flushed_at = self.last_byte_at = time.monotonic()
        self._surplus = False
        self._window_at: float | None = None
        self._window_bytes = 0
        self._pace: deque[tuple[float, int]] = deque([(self.last_byte_at, 0)])

    def on_body(self, head: Head, chunk: bytes) -> bool:
        count = len(chunk)
        in_order = type(self.verdict) is Range and self.disk_error is None
        if in_order and self._offset + count < self.end and self._held + count < self._most_held:
            # The usual case, thousands of times a second: what is in order is counted with the next that is not.
            self._chunks.append(chunk)
            self._held += count
            self._offset += count
            self._fresh += count
            if self._owner.capped:
                self.count_fresh()
            return True
        if self.verdict is None:
            self.verdict = self._judge(head)
        if not isinstance(self.verdict, Range | Whole) or self.disk_error is not None:
            return False
        now = time.monotonic()
        self._take(chunk, now)
        written = True
        if self._held and (
            self._held >= self._limits.write_bytes
            or self._offset == self.end
            or now - self._flushed_at >= self._limits.flush_every_s
        ):
            written = self.flush(now)
        # At the end the connection is let be, for the next range; one that goes on beyond it is cut.
        return written and not self._surplus

    def count_fresh(self) -> None:
        """What came and has not been counted yet is."""
        if self._fresh:
            count, self._fresh = self._fresh, 0
            self._counted(count, count, time.monotonic())

    def _counted(self, count: int, wanted: int, now: float) -> None:
        self.last_byte_at = now
        self.received += count
        if self._window_at is None:
            self._window_at = now  # the way to the first byte is judged by its silence alone
        else:
            self._window_bytes += count
        self._owner.bytes_came(self, count, wanted)

    def _take(self, chunk: bytes, now: float) -> None:
        """Hold what of the chunk belongs into this fetch's range."""
        self.count_fresh()
        count = len(chunk)
        if self._offset < self._skip_until:
            skipped = min(count, self._skip_until - self._offset)
            self._offset += skipped
            chunk = chunk[skipped:]
        room = self.end - self._offset
        self._surplus = len(chunk) > room
        if self._surplus:
            chunk = chunk[:room]
        if chunk:
            self._chunks.append(chunk)
            self._held += len(chunk)
            self._offset += len(chunk)
        self._counted(count, len(chunk), now)

    def on_end(self, head: Head, failure: WireFailure | None) -> None:
        self.exchange = None
        if failure is None and self.verdict is None and head.status:
            self.verdict = self._judge(head)
        self.flush(time.monotonic())
        self._owner.fetch_ended(self, self.verdict, failure)

    def flush(self, now: float) -> bool:
        """Write what is held; False with ``disk_error`` set. After that nothing more is taken or written: its place
        would be wrong."""
        self.count_fresh()
        self._flushed_at = now
        if not self._chunks:
            return self.disk_error is None
        chunks, held = self._chunks, self._held
        self._chunks, self._held = [], 0
        try:
            self.file.part.write(chunks, self.position)
        except OSError as error:
            self.disk_error = error
            return False
        self.position += held
        self._owner.bytes_written(self)
        return True

    def share(self) -> tuple[int, int]:
        """Give the second half of what is owed to somebody else."""
        middle = self._offset + (self.end - self._offset) // 2
        theirs = (middle, self.end)
        self.end = middle
        return theirs

    def flush_if_old(self, now: float) -> None:
        if self._held and now - self._flushed_at >= self._limits.flush_every_s:
            self.flush(now)

    @property
    def missing(self) -> tuple[int, int]:
        return self.position, self.end

    @property
    def superfluous(self) -> bool:
        """All that it could bring has come another way."""
        return self.file.stage is not Stage.FETCHING or not self.file.part.have.holes(self.position, self.end)

    def silent_for(self, now: float) -> float:
        return now - self.last_byte_at

    @property
    def measured_since(self) -> float | None:
        """When the window began that its rate is judged by; None until its first byte."""
        return self._window_at

    def measure(self, now: float, window_s: float) -> float | None:
        """Bytes per second over the window that ends now; None while it is open."""
        if self._window_at is None or now - self._window_at < window_s:
            return None
        rate = self._window_bytes / (now - self._window_at)
        self._window_at, self._window_bytes = now, 0
        return rate

    def note_pace(self, now: float) -> None:
        self._pace.append((now, self.received))
        while self._pace[1][0] < now - PACE_KEPT_S:
            self._pace.popleft()

    def pace_bps(self, now: float, window_s: float) -> float | None:
        """Bytes per second over the last ``window_s``; None for one that is younger."""
        if self._pace[0][0] > now - window_s:
            return None
        since, before = next(sample for sample in reversed(self._pace) if sample[0] <= now - window_s)
        return (self.received - before) / (now - since)

    def forgive(self, seconds: float) -> None:
        """Nobody looked at the connection for so long: that silence is not the connection's."""
        now = time.monotonic()
        # What came in the same round came after it.
        self.last_byte_at = min(now, self.last_byte_at + seconds)
        self._pace = deque([(now, self.received)])
        if self._window_at is not None:
            self._window_at += seconds

    def _judge(self, head: Head) -> Verdict:
        file, address = self.file, self.address
        verdict = judge(head, address, (self.start, self.end), file.job.size)
        if isinstance(verdict, Refusal):
            return verdict
        if not address.signed:
            changed: MlxManagerError | None = check_etag(head, file.job.digest.hex)
            if changed is not None:
                return Refusal(changed)
        if isinstance(verdict, Redirect):
            return verdict
        if not address.answered(head.headers.get("etag", "")):
            return Refusal(SourceRefused("The source changed the file's ETag between two answers."), resolve_again=True)
        address.ignores_ranges = isinstance(verdict, Whole)
        if isinstance(verdict, Whole):
            # The file comes from its first byte: pass over what is here, keep the rest of it to the end.
            self._offset, self._skip_until = 0, self.position
            self.end = file.job.size
        return verdict
