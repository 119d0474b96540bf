"""Every error that a person can meet, in one tree.

    MlxManagerError
    ├── RequestError             what was asked cannot be done as it was asked
    │   ├── InvalidModelId · InvalidRevision · InvalidPatterns · InvalidRequest
    │   ├── DownloadNotFound · MoveNotAllowed · DownloadInFlight · DownloadSuperseded
    │   ├── NotInCache · ModelInUse · TooManyStreams
    ├── HubError                 the Hub's answer, or the lack of one
    │   ├── ModelNotFound · RevisionNotFound · EmptyRepository · NoFileMatches · UnsafeFileName · FileGone
    │   ├── AccessDenied → GatedModel · TokenMissing · TokenRejected
    │   ├── HubOffline
    │   └── HubTrouble (passing) → HubUnreachable · HubTimeout · HubRateLimited · HubServerError · HubBadAnswer
    ├── TransferError            the bytes themselves
    │   ├── SourceTrouble (passing) → SourceUnreachable · SourceRefused · SourceStalled · SourceShort
    │   │                             · SourceBusy · SourceRateLimited
    │   ├── SourceRejected · SourceChanged · HashMismatch
    ├── DiskError                this machine's disk
    │   ├── DiskFull · CacheNotWritable · CacheFailed · CacheGone · TooManyFiles · LedgerFailed
    └── StartError               the product cannot start here
        ├── InvalidSetting · PortInUse · DataDirInUse · DataDirNotWritable · DatabaseUnusable · ServerUnreachable
        ├── AccessTokenUnusable

``transient`` says if the same request may succeed later without anybody doing anything. ``advice`` is the next step for
the person; it is never empty. No message holds a token or a signed URL.
"""

from __future__ import annotations

from typing import ClassVar


class MlxManagerError(Exception):
    """Base of the tree: a stable ``code``, an HTTP status, whether a retry can help, and the next step."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    transient: ClassVar[bool] = False
    default_advice: ClassVar[str] = "Look at the log for what went before; if it happens again, report it with the log."

    def __init__(self, detail: str, *, advice: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice or self.default_advice

    @property
    def advice_to_asker(self) -> str:
        """The next step for somebody who has asked for this one answer, which nobody asks for again."""
        return self.advice


class RequestError(MlxManagerError):
    code = "bad_request"
    http_status = 422
    default_advice = "Correct the request and send it again."


class InvalidRequest(RequestError):
    code = "invalid_request"


class InvalidModelId(RequestError):
    code = "invalid_model_id"
    default_advice = "Use the form ORG/MODEL as on the Hub's page, for example mlx-community/Qwen3-0.6B-4bit."


class InvalidRevision(RequestError):
    code = "invalid_revision"
    default_advice = "Name a branch, a tag or a commit of the repository, for example main."


class InvalidPatterns(RequestError):
    code = "invalid_patterns"
    default_advice = "Give file patterns such as *.safetensors, at most 100 of them."


class DownloadNotFound(RequestError):
    code = "download_not_found"
    http_status = 404
    default_advice = "List the downloads (GET /api/models/downloads or `mlx-manager ps`) and use a task_id from there."


class MoveNotAllowed(RequestError):
    code = "move_not_allowed"
    http_status = 409
    default_advice = "Look at the download's state first; a finished download is started again with a new request."


class DownloadInFlight(RequestError):
    """The same request is in flight already, as another row of the ledger."""

    code = "download_in_flight"
    http_status = 409
    default_advice = "Watch the download that runs already, or cancel it first."


class DownloadSuperseded(RequestError):
    """A worker of an older epoch tried to write: another one has taken the download over."""

    code = "download_superseded"
    http_status = 409
    default_advice = "Nothing to do: the download goes on in the worker that took over."


class NotInCache(RequestError):
    code = "not_in_cache"
    http_status = 404
    default_advice = "List what is here (GET /api/models/local or `mlx-manager ls`) and name it as it stands there."


class ModelInUse(RequestError):
    """Somebody downloads the model right now."""

    code = "model_in_use"
    http_status = 409
    default_advice = "Wait until the download is finished, or cancel it first; then delete."


class TooManyStreams(RequestError):
    code = "too_many_streams"
    http_status = 503
    default_advice = "Close pages that you do not need, or poll …/status instead; MLX_MANAGER_MAX_STREAMS allows more."
    retry_after_s = 10.0


TLS_ADVICE = (
    "If a company's proxy or a virus scanner replaces certificates, add its certificate authority to the system's "
    "store or name the file in SSL_CERT_FILE."
)


READ_ONLY_ADVICE = (
    "The cache's disk is mounted read-only, which a fault of the disk can do too: look at it, mount it for writing, "
    "then resume; or set HF_HUB_CACHE to another folder."
)


class HubError(MlxManagerError):
    code = "hub_error"
    http_status = 502


class ModelNotFound(HubError):
    code = "model_not_found"
    http_status = 404
    default_advice = "Check the spelling of ORG/MODEL. If it is private, log in with `hf auth login`."


class RevisionNotFound(HubError):
    code = "revision_not_found"
    http_status = 404
    default_advice = "Look at the model's page for its branches and tags; `main` is the usual one."


class EmptyRepository(HubError):
    code = "empty_repository"
    http_status = 422
    default_advice = "Choose another model or revision: this one holds no file."


class NoFileMatches(HubError):
    code = "no_file_matches"
    http_status = 422
    default_advice = "Widen allow_patterns or drop ignore_patterns; patterns match whole paths in the repository."


class UnsafeFileName(HubError):
    code = "unsafe_file_name"
    http_status = 422
    default_advice = "Do not use this repository: it names files that would land outside the model's own folder."


class FileGone(HubError):
    code = "file_gone"
    http_status = 404
    default_advice = "The repository changed or was deleted while it was fetched. Start the download again."


class AccessDenied(HubError):
    code = "access_denied"
    http_status = 403
    default_advice = "Log in with an account that may read this model (`hf auth login`), then start again."


class GatedModel(AccessDenied):
    code = "gated_model"
    default_advice = "Open the model's page, ask for access there, log in with `hf auth login`, then start again."


class TokenMissing(AccessDenied):
    code = "token_missing"
    http_status = 401
    default_advice = "Log in with `hf auth login` or set HF_TOKEN, then start again."


class TokenRejected(AccessDenied):
    code = "token_rejected"
    http_status = 401
    default_advice = "The token is wrong or expired: make a new one on the Hub, `hf auth login`, then start again."


class HubOffline(HubError):
    code = "hub_offline"
    http_status = 503
    default_advice = "Unset HF_HUB_OFFLINE to let MLX Manager ask the Hub."


class HubTrouble(HubError):
    """A passing fault of the Hub or of the way to it."""

    code = "hub_trouble"
    http_status = 503
    transient = True
    default_advice = "Nothing to do: it is tried again by itself. If it lasts, check the network."
    asker_advice: ClassVar[str] = "Ask again in a while. If it lasts, `mlx-manager doctor` looks for the reason."

    @property
    def advice_to_asker(self) -> str:
        return self.asker_advice if self.advice == self.default_advice else self.advice


class HubUnreachable(HubTrouble):
    code = "hub_unreachable"
    default_advice = "Check the network, the proxy settings and HF_ENDPOINT. It is tried again by itself."
    asker_advice = "Check the network, the proxy settings and HF_ENDPOINT: `mlx-manager doctor` looks at all of them."


class HubTimeout(HubTrouble):
    code = "hub_timeout"
    http_status = 504


class HubRateLimited(HubTrouble):
    """429. ``retry_after_s``: what the Hub asked us to wait, in seconds, if it said."""

    code = "hub_rate_limited"
    default_advice = "Nothing to do: it waits as the Hub asked. Logged in (`hf auth login`) the limits are higher."
    asker_advice = "Ask again later. Logged in (`hf auth login`) the limits are higher."

    def __init__(self, detail: str, *, retry_after_s: float | None = None, advice: str | None = None) -> None:
        super().__init__(detail, advice=advice)
        self.retry_after_s = retry_after_s


class HubServerError(HubTrouble):
    code = "hub_server_error"


class HubBadAnswer(HubTrouble):
    code = "hub_bad_answer"
    default_advice = "A proxy or a login page may answer in the Hub's place: open the Hub in a browser."
    asker_advice = default_advice


class TransferError(MlxManagerError):
    """``file``: the path of the one file it is about, where it is about one."""

    code = "transfer_error"
    http_status = 502
    file: str | None = None


class SourceTrouble(TransferError):
    """A passing fault of the place the bytes come from."""

    code = "source_trouble"
    http_status = 503
    transient = True
    default_advice = "Nothing to do: it is tried again by itself and goes on from where it stood."


class SourceUnreachable(SourceTrouble):
    code = "source_unreachable"
    default_advice = "Check the network. It is tried again by itself and goes on from where it stood."


class SourceRefused(SourceTrouble):
    """The source answered, but not with the range that was asked for."""

    code = "source_refused"


class SourceStalled(SourceTrouble):
    code = "source_stalled"


class SourceShort(SourceTrouble):
    code = "source_short"


class SourceBusy(SourceTrouble):
    """503: it has too much to do."""

    code = "source_busy"


class SourceRateLimited(SourceTrouble):
    """429 or 503 with a wish. ``retry_after_s``: seconds the source asked for, if it said."""

    code = "source_rate_limited"

    def __init__(self, detail: str, *, retry_after_s: float | None = None, advice: str | None = None) -> None:
        super().__init__(detail, advice=advice)
        self.retry_after_s = retry_after_s


class SourceRejected(TransferError):
    code = "source_rejected"
    default_advice = "The source will not give this file. Check the token and the access to the model, then resume."


class SourceChanged(TransferError):
    code = "source_changed"
    default_advice = "The file changed on the Hub while it was fetched. Start the download again."


class HashMismatch(TransferError):
    code = "hash_mismatch"
    default_advice = "The source keeps sending wrong bytes; none were kept. Try later, or from another network."


class DiskError(MlxManagerError):
    code = "disk_error"
    http_status = 507


class DiskFull(DiskError):
    code = "disk_full"
    default_advice = "Free some space on the cache's disk (`mlx-manager ls` shows what is there), then resume."


class CacheNotWritable(DiskError):
    code = "cache_not_writable"
    default_advice = "Give this user write access to the Hugging Face cache, or set HF_HUB_CACHE to another folder."


class CacheFailed(DiskError):
    code = "cache_failed"
    default_advice = "Check the cache's disk; what was fetched is kept. Resume when it is well again."


class CacheGone(DiskError):
    """Somebody deleted the model's folder while it was being fetched."""

    code = "cache_gone"
    http_status = 409
    default_advice = "Resume to fetch it again from the start, or cancel the download."


class TooManyFiles(DiskError):
    code = "too_many_files"
    http_status = 503
    default_advice = "Raise the limit (`ulimit -n`) for the server or lower MLX_MANAGER_CONNECTIONS, then resume."


class LedgerFailed(DiskError):
    """The list of downloads could not be read or written just now."""

    code = "ledger_failed"
    default_advice = "Check that the disk of MLX Manager's data folder has room and works."


class StartError(MlxManagerError):
    code = "start_error"
    http_status = 503


class InvalidSetting(StartError):
    code = "invalid_setting"
    default_advice = "Set it to a right value, or unset it for the default; the README lists all settings."


class PortInUse(StartError):
    code = "port_in_use"
    default_advice = "Stop the other program, or choose another port with --port or MLX_MANAGER_PORT."


class DataDirInUse(StartError):
    code = "data_dir_in_use"
    default_advice = "Use the server that runs already, or stop it first, or set MLX_MANAGER_HOME to another folder."


class DataDirNotWritable(StartError):
    code = "data_dir_not_writable"
    default_advice = "Give this user write access to the folder, or set MLX_MANAGER_HOME to another one."


class DatabaseUnusable(StartError):
    code = "database_unusable"
    default_advice = "Move the database file away and start again: models stay, the list of downloads is lost."


class AccessTokenUnusable(StartError):
    code = "access_token_unusable"
    default_advice = "Make a new one with `mlx-manager token --renew`."


class ServerUnreachable(StartError):
    code = "server_unreachable"
    default_advice = "Start it with `mlx-manager serve`, or look into its log."
