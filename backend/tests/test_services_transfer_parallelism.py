"""How many connections are worth having, told by what they brought."""

from __future__ import annotations

from mlx_manager.services.transfer.parallelism import Parallelism


class Line:
    """A made-up line: what so many connections bring in a second."""

    def __init__(self, most: float, each: float) -> None:
        self.most, self.each = most, each
        self.parallelism = Parallelism(first=8, most=16)
        self.now = 100.0
        self.received = 0.0

    def run(self, seconds: float, *, busy: bool = True) -> int:
        """Let time pass in steps of the engine's loop; how many connections there are then."""
        for _ in range(int(seconds / 0.1)):
            self.now += 0.1
            self.received += 0.1 * min(self.most, self.each * self.parallelism.allowed)
            self.parallelism.note(self.now, int(self.received), 0, busy=busy)
        return self.parallelism.allowed


def test_it_grows_while_each_connection_brings_more() -> None:
    assert Line(most=1e9, each=1e6).run(3) == 16


def test_it_takes_back_what_brought_nothing() -> None:
    line = Line(most=8e6, each=1e6)
    assert line.run(1.2) == 8
    assert line.run(5) == 8, "it asks again only after a while"


def test_it_asks_again_later() -> None:
    line = Line(most=8e6, each=1e6)
    line.run(3)
    line.most = 1e9
    assert line.run(25) == 16


def test_round_trips_count_like_bytes() -> None:
    parallelism = Parallelism(first=8, most=16)
    now, requests = 0.0, 0.0
    for _ in range(20):
        now += 0.1
        requests += 2 * parallelism.allowed
        parallelism.note(now, 0, int(requests), busy=True)
    assert parallelism.allowed == 16


def test_a_refusal_halves_it_and_is_remembered() -> None:
    line = Line(most=1e9, each=1e6)
    line.run(3)
    line.parallelism.refused(line.now)
    assert line.run(2) == 8
    line.parallelism.refused(line.now)
    line.parallelism.refused(line.now)
    line.parallelism.refused(line.now)
    line.parallelism.refused(line.now)
    assert line.parallelism.allowed == 1
    assert line.run(30) > 4, "it recovers"


def test_a_rate_that_collapses_halves_it() -> None:
    line = Line(most=1e9, each=1e6)
    line.run(3)
    line.most = 1e6
    assert line.run(3) < 16


def test_a_window_in_which_connections_were_idle_tells_nothing() -> None:
    assert Line(most=1e9, each=1e6).run(5, busy=False) == 8


def test_on_a_distant_line_it_is_not_judged_before_it_can_bring_anything() -> None:
    """Each connection that is added needs 0.4 s for its way there, and brings as much as the others from then on."""
    parallelism = Parallelism(first=8, most=32)
    parallelism.answered(0.4)
    now, received, working = 100.0, 0.0, [(100.0, 8)]
    for _ in range(40):
        now += 0.1
        received += sum(0.1e6 * count for since, count in working if now >= since)
        before = parallelism.allowed
        parallelism.note(now, int(received), 0, busy=True)
        if parallelism.allowed > before:
            working.append((now + 0.4, parallelism.allowed - before))
    assert parallelism.allowed == 32
