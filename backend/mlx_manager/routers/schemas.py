"""The shapes of the API in JSON: what is asked and what is answered, for OpenAPI and for checking what comes in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mlx_manager.domain.catalog import MAX_ID, MAX_PATTERN, MAX_PATTERNS, MAX_REVISION
from mlx_manager.domain.presets import Preset
from mlx_manager.domain.states import Phase, Status


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("it should be a number")
    return value


NUMBER = BeforeValidator(_number)
"""Last of an int's annotations: as JSON has it, 5 and 5.0, but neither "5" nor true, which Python would take."""

# What `domain.catalog` checks, as a schema says it, for whoever generates requests. It is told and not enforced here: a
# wrong one is answered in the words of the check.
_PART = "[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
MODEL_ID: dict[str, Any] = {
    "pattern": rf"^(?!.*(?:--|\.\.))(?!.*\.git(?:/|$)){_PART}/{_PART}$",
    "maxLength": MAX_ID,
}
ID_PART: dict[str, Any] = {"pattern": rf"^(?!.*(?:--|\.\.))(?!.*\.git$){_PART}$", "maxLength": MAX_ID}
REVISION: dict[str, Any] = {
    "pattern": r"^(?!.*(?:\.\.|//|/\.))(?!.*(?:/|\.lock)$)[A-Za-z0-9_][A-Za-z0-9._/+-]*$",
    "maxLength": MAX_REVISION,
}
_PATTERNS: dict[str, Any] = {
    "anyOf": [
        {
            "type": "array",
            "maxItems": MAX_PATTERNS,
            "items": {
                "type": "string",
                "pattern": r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$",
                "maxLength": MAX_PATTERN,
            },
        },
        {"type": "null"},
    ]
}


class DownloadRequest(BaseModel):
    """What to download. The same model, revision and patterns in flight is one download."""

    # A misspelt field would silently fetch more than was asked for.
    model_config = ConfigDict(extra="forbid")

    model_id: Annotated[
        str, Field(description="ORG/MODEL", examples=["mlx-community/Qwen3-0.6B-4bit"], json_schema_extra=MODEL_ID)
    ]
    revision: Annotated[str, Field(description="A branch, a tag or a commit.", json_schema_extra=REVISION)] = "main"
    allow_patterns: Annotated[
        list[str] | None,
        Field(
            description="Only files that match one of them.",
            examples=[["*.safetensors"]],
            json_schema_extra=_PATTERNS,
        ),
    ] = None
    ignore_patterns: Annotated[
        list[str] | None, Field(description="No file that matches one of them.", json_schema_extra=_PATTERNS)
    ] = None
    preset: Annotated[Preset | None, Field(description="mlx: what MLX needs; all: everything.")] = None
    priority: Annotated[int, Field(ge=-100, le=100, description="Higher waits less for a free slot."), NUMBER] = 0


class Accepted(BaseModel):
    """The download that does what was asked; 202 when it is new, 200 when it was in flight already."""

    task_id: str
    model_id: str


class PlannedFile(BaseModel):
    path: str
    size: int
    here_bytes: int
    action: Literal["fetch", "resume", "here"]


class LeftOutFile(BaseModel):
    path: str
    size: int


class DownloadPlan(BaseModel):
    """What a download would do. Sizes in bytes; contents that files share count once in the sums."""

    model_id: str
    revision: str
    commit: str
    files: list[PlannedFile]
    left_out: list[LeftOutFile] = Field(description="Files of the commit that would not be fetched.")
    total_bytes: int
    here_bytes: int
    fetch_bytes: int = Field(description="Bytes over the wire.")
    rate_bps: int | None = Field(description="The last rate that was measured; null before the first download.")
    eta_s: float | None
    disk_free_bytes: int
    disk_after_bytes: int = Field(description="After this download and those that are under way; negative: missing.")
    queue_bytes: int = Field(description="Room that those that are under way still take.")
    enough_room: bool = Field(
        description="With this and all that is under way, paused ones too, 64 MiB of the disk stay free."
    )
    note: str | None


class FileState(BaseModel):
    """One file of a running download. ``state``: waiting, transferring, hashing, done."""

    path: str
    size: int
    done_bytes: int
    state: str


class Snapshot(BaseModel):
    """A download at one moment: the same object in every answer and in every event."""

    model_config = ConfigDict(extra="forbid")

    task_id: str
    model_id: str
    status: Status
    progress: float = Field(ge=0, le=100, description="Percent; 100 only when it is completed.")
    downloaded_bytes: int = Field(description="Bytes that are here, kept from earlier runs included.")
    total_bytes: int = Field(description="Bytes of all files; 0 while nobody knows.")
    error: str | None
    revision: str
    commit: str | None
    total_is_estimate: bool = Field(
        description="The size was guessed from the model's name; the Hub did not answer yet."
    )
    phase: Phase | None = Field(description="The finer truth inside the status.")
    message: str = Field(description="The phase in words for a person.")
    since: datetime | None = Field(description="When this phase began.")
    deadline: datetime | None = Field(description="When the wait ends at the latest, where one is known.")
    last_byte_age_s: float | None = Field(description="Seconds since the last byte came; null while none is due.")
    speed_bps: int = Field(description="Bytes per second over the last seconds.")
    eta_s: float | None = Field(description="Seconds to go; null while it would be a guess.")
    error_code: str | None
    advice: str | None = Field(description="The next step, where there is an error or a wait.")
    attempt: int
    files_done: int
    files_total: int
    started_at: datetime | None
    finished_at: datetime | None
    created_at: datetime | None
    place: int | None = Field(description="Place in the line for a free slot, from 1.")
    priority: int
    reused_bytes: int = Field(description="Bytes that were here already when this run began.")
    received_bytes: int = Field(description="Bytes that came over the wire in this run.")
    connections: int
    allow_patterns: list[str] | None
    ignore_patterns: list[str] | None
    files: list[FileState] | None = Field(default=None, description="Only when asked for with `files=true`.")


class DownloadsPage(BaseModel):
    """Downloads, newest first; ``next_cursor`` asks for the page after this one, null on the last."""

    downloads: list[Snapshot]
    next_cursor: str | None


class Rates(BaseModel):
    """Bytes per second of each download that is at work, by its ``task_id``: one for each ``step_s`` seconds,
    the newest last."""

    step_s: int
    rates: dict[str, list[int]]


class LocalRevision(BaseModel):
    """One commit of a model on the disk. ``files_total`` and ``missing_bytes``: null where nobody knows what the commit
    holds."""

    commit: str
    refs: list[str] = Field(description="Branches and tags that stood for it when they were last asked for.")
    files: int = Field(description="Files that are whole here.")
    files_total: int | None
    size_bytes: int
    complete: bool = Field(description="It can be used: nothing is missing that a loader asks for.")
    missing: list[str] = Field(description="The first 20 files that are not whole here, by name.")
    missing_files: int
    missing_bytes: int | None


class LocalModel(BaseModel):
    """A model in the cache. ``complete``: at least one of its commits can be used; ``commit`` is the newest of those,
    or the newest of all."""

    repo_id: str = Field(description="How `hf cache ls` and `hf cache rm` call it.", examples=["model/org/name"])
    model_id: str
    commit: str | None
    size_bytes: int = Field(description="All that it takes on the disk; what its commits share counts once.")
    partial_bytes: int = Field(description="Room of files that are not whole; it is taken before their bytes come.")
    complete: bool
    path: str
    modified_at: datetime
    last_used_at: datetime | None = Field(description="When its content was last read, as far as the disk notes it.")
    revisions: list[LocalRevision] = Field(description="Newest first.")


class LocalModels(BaseModel):
    """All models by name. ``size_bytes``: what they take together; what models share counts once."""

    models: list[LocalModel]
    size_bytes: int
    as_of: datetime


class DeletePlan(BaseModel):
    """What a deletion removes, or has removed."""

    model_id: str
    revisions: list[str] = Field(description="The commits that go.")
    freed_bytes: int
    shared_bytes: int = Field(description="Bytes of the same files that stay: another commit or model uses them.")
    files: int = Field(description="Contents that go, partial ones too.")
    whole_model: bool
    blocked: str | None = Field(description="Why it must not be done now, in words.")
    note: str | None


class HealthProblem(BaseModel):
    """``advice``: the next step for the person."""

    code: str
    detail: str
    advice: str


class Health(BaseModel):
    status: Literal["ok", "degraded"] = Field(
        description="`degraded` while there is a problem; it serves all the same."
    )
    version: str
    pid: int
    problem: HealthProblem | None = Field(
        description="What keeps the server from doing all of its work, such as a full disk under the list of downloads."
    )


class CachePlace(BaseModel):
    """The Hugging Face cache. ``free_bytes`` and ``queue_bytes``: null when it cannot be told; ``error`` says why."""

    path: str
    free_bytes: int | None = Field(description="Room on its disk.")
    queue_bytes: int | None = Field(
        description="Room that the downloads that are not at their end still take, as far as their sizes are known."
        " Partial files own their room already."
    )
    error: str | None


class HubState(BaseModel):
    """``reachable`` is what the last look found, ``age_s`` seconds ago; null before the first look, and offline."""

    endpoint: str
    offline: bool
    reachable: bool | None
    latency_ms: float | None
    error: str | None
    age_s: float | None


class Limits(BaseModel):
    """What the settings allow."""

    max_downloads: int
    connections_per_download: int
    size_check_s: float
    hub_timeout_s: float
    stall_s: float


class Counts(BaseModel):
    """Downloads that run, and that wait for a free slot."""

    active: int
    waiting: int


class System(BaseModel):
    """Where this MLX Manager stands."""

    version: str
    pid: int
    platform: str
    python: str
    started_at: datetime
    data_dir: str
    log_file: str
    cache: CachePlace
    hub: HubState
    limits: Limits
    downloads: Counts
