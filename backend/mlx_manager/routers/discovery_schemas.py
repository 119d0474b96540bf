"""The shapes of discovery in JSON: what there is, and whether it runs here."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from mlx_manager.domain.fit import Verdict


class Quant(BaseModel):
    """How weights are stored. ``bits``: of one weight, without scales; ``mode``: MLX's name of the format."""

    label: str = Field(examples=["4-bit", "mxfp4", "4-bit DWQ", "bf16"])
    bits: float | None
    mode: str | None


class Fit(BaseModel):
    """Whether a model runs on this machine, with the figures; bytes, null where they are not known."""

    verdict: Verdict
    needs_bytes: int | None
    weights_bytes: int | None
    kv_bytes: int | None = Field(description="The cache of a conversation of `context` tokens.")
    work_bytes: int | None = Field(description="Room to work in.")
    context: int = Field(description="Tokens.")
    max_context: int | None = Field(description="The most tokens that still fit.")
    available_bytes: int
    machine: str
    is_estimate: bool = Field(description="One of the figures comes from a rule of thumb.")
    why: str


class Hit(BaseModel):
    """A model of the Hub. ``local``: what of it is in the cache already."""

    model_id: str
    author: str
    name: str
    task: str | None
    family: str | None
    params: int | None
    quant: Quant | None
    size_bytes: int | None
    size_is_estimate: bool = Field(description="The Hub does not know the size: the model's name suggests it.")
    downloads: int
    likes: int
    updated_at: datetime | None
    created_at: datetime | None
    licence: str | None
    gated: Literal[False, "auto", "manual"]
    capabilities: list[str]
    fit: Fit
    local: Literal["complete", "partial"] | None


class SearchPage(BaseModel):
    """``as_of`` and ``age_s``: when the Hub said it; ``stale``: it does not answer now, and this is from before."""

    models: list[Hit]
    next_cursor: str | None = Field(description="Asks for the next page; null on the last.")
    as_of: datetime
    age_s: float
    stale: bool
    note: str | None


class MachineState(BaseModel):
    """The machine that models are to run on."""

    name: str
    chip: str
    memory_bytes: int
    usable_bytes: int = Field(description="What a model may take of it.")
    is_apple_silicon: bool
    text: str
