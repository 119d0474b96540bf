"""What becomes of the downloads that the last process left behind. Pure: rows in, decisions out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mlx_manager.domain.download import Download, Paused, Requeued, Resumed, Waiting, apply
from mlx_manager.domain.states import Desire, Phase, Status


class Next(Enum):
    RUN = "into the line"
    REST = "stays as it is until the person asks"
    CANCEL = "the cancel that was asked for is carried out"


@dataclass(frozen=True, slots=True)
class Recovered:
    download: Download
    next: Next


def recover(download: Download, at: float, *, go_on: bool) -> Recovered:
    """What the person wants was written before anything was done about it, so it is what counts.

    ``go_on``: interrupted downloads go on by themselves; if not they wait until they are asked for.
    """
    d = apply(download, Requeued(at)) if download.status.is_active else download
    if d.desire is Desire.CANCELLED:
        return Recovered(d, Next.CANCEL)
    if d.desire is Desire.PAUSED:
        return Recovered(d if d.status is Status.PAUSED else apply(d, Paused(at)), Next.REST)
    if d.status is Status.PAUSED:
        d = apply(d, Resumed(at))
    if go_on:
        return Recovered(d, Next.RUN)
    message = "Interrupted. It goes on when it is asked for again, or with the next `mlx-manager serve`."
    return Recovered(apply(d, Waiting(at, Phase.WAITING_FOR_SLOT, message)), Next.REST)
