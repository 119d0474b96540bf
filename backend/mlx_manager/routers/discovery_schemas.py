"""The shapes of discovery in JSON: what there is, and whether it runs here."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from mlx_manager.domain.facts import Access
from mlx_manager.domain.fit import Verdict
from mlx_manager.routers.schemas import LocalModel


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


class RepoFile(BaseModel):
    path: str
    size: int
    chosen: bool = Field(description="Part of the preset for MLX.")
    here: bool


class Revision(BaseModel):
    name: str
    kind: Literal["branch", "tag"]
    commit: str


class Variant(BaseModel):
    """A model made from the same one."""

    model_id: str
    params: int | None
    quant: Quant | None
    size_bytes: int | None
    size_is_estimate: bool
    gated: Literal[False, "auto", "manual"]
    fit: Fit
    local: Literal["complete", "partial"] | None


class Use(BaseModel):
    """Lines to paste."""

    mlx_lm: str
    python: str
    hf: str


class ModelInfo(BaseModel):
    """One model in full. ``stale``: the Hub does not answer now; ``note`` says what this is instead."""

    model_id: str
    revision: str
    commit: str
    hub_url: str
    author: str
    name: str
    task: str | None
    family: str | None
    architecture: str | None
    params: int | None
    quant: Quant | None
    context_length: int | None
    licence: str | None
    licence_url: str | None
    gated: Literal[False, "auto", "manual"]
    access: Access = Field(description="What it takes to fetch the files; `access_url` is the page that grants it.")
    access_url: str | None
    downloads: int
    likes: int
    updated_at: datetime | None
    created_at: datetime | None
    capabilities: list[str]
    is_mlx: bool
    size_bytes: int = Field(description="Of all files.")
    weights_bytes: int | None
    files: list[RepoFile]
    revisions: list[Revision]
    card_html: str | None = Field(description="The README, made safe: no script, no style, no image.")
    card_note: str | None
    fit: Fit
    variants: list[Variant] = Field(description="What runs here first, the largest of it first.")
    local: LocalModel | None
    use: Use
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


class Starters(BaseModel):
    """Good models to begin with, from small to large."""

    models: list[Hit]


class HubAccount(BaseModel):
    """Who we are to the Hub. The token itself is never told."""

    logged_in: bool
    name: str | None
    kind: Literal["user", "org"] | None
    token_source: Literal["HF_TOKEN", "file"] | None
    can_read_gated: bool | None = Field(description="The token may read gated models that its account has access to.")
    error: str | None
    advice: str | None


class HubToken(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: SecretStr
