"""How each life of the server ends, and what is asked of it before: drawn from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from torture.world import KEPT, WITHDRAWN


class Moment(Enum):
    """What the blow waits for; ``after_s`` counts from there."""

    BIRTH = "the start of the process"
    READY = "the first answer"
    VERIFYING = "a download that verifies or links"
    MOVE = "a request that was sent and is not answered yet"


@dataclass(frozen=True, slots=True)
class Life:
    """``move``: sent once it answers, pause, resume, request or cancel, on ``model``."""

    number: int
    moment: Moment
    after_s: float
    move: str | None = None
    model: str = ""


def lives(seed: int) -> Iterator[Life]:
    """The same lives for the same seed, without an end."""
    dice = random.Random(seed)
    number = 0
    while True:
        number += 1
        (moment,) = dice.choices(list(Moment), weights=(15, 50, 15, 20))
        move, model = None, ""
        if moment in (Moment.MOVE, Moment.READY):
            move, model = dice.choice(
                [
                    ("pause", dice.choice(KEPT)),
                    ("resume", dice.choice(KEPT)),
                    ("request", dice.choice(KEPT)),
                    ("request", WITHDRAWN),
                    ("cancel", WITHDRAWN),
                ]
            )
        after_s = {
            Moment.BIRTH: dice.uniform(0.0, 1.5),
            Moment.READY: dice.choice((dice.uniform(0.0, 0.5), dice.uniform(0.5, 3.0), dice.uniform(3.0, 8.0))),
            Moment.VERIFYING: dice.uniform(0.0, 0.1),
            Moment.MOVE: dice.uniform(0.0, 0.08),
        }[moment]
        yield Life(number, moment, after_s, move, model)
