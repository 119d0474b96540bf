"""How the Hub is asked anything through huggingface_hub: whose token goes along, and what its refusals mean.

Every question ends: by an answer, by an error of `mlx_manager.errors` that names the cause, or by its deadline.
Nothing is tried again here; whoever asks decides that. How the network is bounded: `hf_transport/`. What is asked is
the business of the rooms above: `hf_client.py`, `hf_search.py`, `hf_info.py`, `hf_account.py`.
"""

from __future__ import annotations

import errno
import logging
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import huggingface_hub
from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    OIDCError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # they are public

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.errors import (
    AccessDenied,
    EmptyRepository,
    GatedModel,
    HubBadAnswer,
    HubError,
    HubOffline,
    HubUnreachable,
    ModelNotFound,
    RevisionNotFound,
    TokenMissing,
    TokenRejected,
    TooManyFiles,
)
from mlx_manager.services.hf_transport import ProxyChoice, Question, bounded_client, origin_of, trusted

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

TOKEN_WITHIN_S = 5.0
_TOKEN = re.compile(r"[\x21-\x7e]+")


class HubAsker:
    """One to a process: huggingface_hub has one network for all, and this gives it ours.

    ``endpoint``: URL of the Hub (HF_ENDPOINT). ``timeout_s``: longest silence of one request; ``deadline_s``: all that
    one question may take, however many requests it needs. ``offline``: HF_HUB_OFFLINE, nothing is asked. ``token``:
    asked at each question, so that a login counts at once; by default where `hf` looks for it.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        timeout_s: float = 10.0,
        deadline_s: float = 30.0,
        offline: bool = False,
        token: Callable[[], str | None] = huggingface_hub.get_token,
        user_agent: str = "mlx-manager",
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._timeout_s = timeout_s
        self.deadline_s = deadline_s
        self.offline = offline
        self._token = token
        self.user_agent = user_agent
        self._proxy_for = ProxyChoice()
        huggingface_hub.set_client_factory(bounded_client)
        # With it on, the first question of a process begins with one that nobody asked: which AI tool started us.
        constants.HF_HUB_DISABLE_TELEMETRY = True

    def prepare(self) -> None:
        """Read the certificates that are trusted, which takes longer than many an answer: the first question then finds
        it done. Blocks. Raises HubError where they cannot be read; every question does so, too."""
        huggingface_hub.get_session()

    def close(self) -> None:
        """Close idle connections. The client can be used again after it."""
        huggingface_hub.close_session()

    def resolve_url(self, model_id: str, commit: str, path: str) -> str:
        """Where the bytes of a file are asked for; the answer is mostly a redirect to a signed address."""
        return f"{self.endpoint}/{model_id}/resolve/{quote(commit, safe='')}/{quote(path)}"

    def xet_token_url(self, model_id: str, commit: str) -> str:
        """Where the Hub gives out the token for its store of what is kept with Xet."""
        return f"{self.endpoint}/api/models/{model_id}/xet-read-token/{quote(commit, safe='')}"

    def token(self) -> str | None:
        """The person's token, for the Hub's own host alone; None for a stranger's questions.

        Costs the reading of a small file, but some logins (the browser's, a CI's) have it renewed at the Hub: then it
        blocks for up to 5 s. Raises TokenRejected for one that cannot be read or sent, HubTrouble when renewing fails.
        """
        with self._question(min(TOKEN_WITHIN_S, self.deadline_s)).here():
            return self._read_token()

    # -- the way to a file's bytes, for those who fetch them

    def owns(self, url: str) -> bool:
        """The URL lies on the Hub itself: there the token may be sent, and nowhere else."""
        try:
            return origin_of(url) == origin_of(self.endpoint)
        except ValueError:
            return False

    def proxy_for(self, url: str) -> str | None:
        """The proxy that a URL is fetched through (it may hold a password), None for the direct way: the same as for
        questions. From any thread."""
        return self._proxy_for(url)

    def trusted(self) -> ssl.SSLContext:
        """Whose certificates are believed, for those who go the way themselves. Raises HubError."""
        return trusted()

    def _question(self, deadline_s: float) -> Question:
        try:
            return Question(self.endpoint, self._timeout_s, deadline_s)
        except ValueError:
            raise HubUnreachable(f"HF_ENDPOINT is not the URL of a Hub: {_first_line(self.endpoint)!r}.") from None

    def _read_token(self) -> str | None:
        try:
            token = self._token()
        except (OIDCError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise TooManyFiles(f"No more files can be opened here: {error.strerror}.") from None
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise TokenRejected(f"The token cannot be read: {reason}.") from None
        if token and not _TOKEN.fullmatch(token):
            raise TokenRejected(
                "The token holds characters that no token has: spaces, control or non-ASCII characters."
            )
        return token or None

    # -- for use inside of a question's ``call``. Not the library's HfApi: it knows all that the Hub can do, and takes
    # -- longer to import than the Hub to answer the two GETs that a plan needs.

    def headers(self, token: str | None) -> dict[str, str]:
        """What goes along with each request."""
        # False, not None: the library would look for a token itself.
        headers: dict[str, str] = build_hf_headers(token=token or False, user_agent=self.user_agent)
        return headers

    def get(
        self,
        url: str,
        token: str | None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """The answer to one GET, if it is none of the Hub's refusals. ``headers`` go along too."""
        response = get_session().get(url, params=params, headers={**self.headers(token), **(headers or {})})
        hf_raise_for_status(response)
        return response

    def model(self, about: ModelRequest, token: str | None, *, sizes: bool = False) -> dict[str, Any]:
        """What the Hub tells of a model at a revision. ``sizes``: those of its files too."""
        url = f"{self.endpoint}/api/models/{about.model_id}/revision/{quote(about.revision, safe='')}"
        told = self.get(url, token, params={"blobs": "true"} if sizes else None).json()
        if not isinstance(told, dict):
            raise TypeError("not a model")
        return told

    async def ask(
        self,
        call: Callable[[str | None], Answer],
        deadline_s: float | None = None,
        about: ModelRequest | None = None,
        *,
        stranger: bool = False,
        token: str | None = None,
    ) -> Answer:
        """``call(token)`` in a thread of its own, with everything that may go wrong told in our words. A stranger's
        question goes without the token; ``token``: asked with this one and not the person's. Raises HubError and its
        kinds."""
        if self.offline:
            raise HubOffline("The Hub is not asked: HF_HUB_OFFLINE is set.")
        question = self._question(self.deadline_s if deadline_s is None else min(deadline_s, self.deadline_s))

        def told() -> Answer:
            used = None if stranger else token or self._read_token()
            try:
                return call(used)
            except OfflineModeIsEnabled:
                raise HubOffline("The Hub is not asked: HF_HUB_OFFLINE is set.") from None
            except HfHubHTTPError as error:
                log.debug("%s refused: %d, request %s", question.host, error.response.status_code, error.request_id)
                # Its own words and what it holds (the request's headers) go no further than here.
                raise self._refusal(error, about, used) from None
            except httpx2.TooManyRedirects:
                raise HubBadAnswer(f"{question.host} redirects in a circle.") from None
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise HubBadAnswer(f"{question.host} answered what is no answer: {type(error).__name__}.") from error
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                # The library takes an answer's form for granted: a login page in place of JSON ends here.
                log.debug("unusable answer of %s", question.host, exc_info=True)
                raise HubBadAnswer(f"{question.host} answered what is not the Hub's JSON.") from error

        return await question.ask(told)

    def _refusal(self, error: HfHubHTTPError, about: ModelRequest | None, token: str | None) -> HubError:
        """What an error status of the Hub means. Passing ones (429, 5xx) never come here: see the transport."""
        status = error.response.status_code
        name = about.model_id if about else "this"
        # In this order: a gated repository's error is a kind of RepositoryNotFoundError.
        if isinstance(error, GatedRepoError):
            return self._gated(name, token)
        if isinstance(error, DisabledRepoError):
            return AccessDenied(f"The Hub has disabled access to {name}.", advice="Choose another model.")
        if isinstance(error, RevisionNotFoundError):
            return RevisionNotFound(f"{name} has no revision {about.revision if about else ''!r}.")
        if status == 401:
            return self._unauthorized(error, name, token)
        if isinstance(error, EntryNotFoundError):
            return EmptyRepository(f"{name} holds no file.")
        if isinstance(error, RepositoryNotFoundError):
            return _not_found(name, token)
        if status == 404:
            host = origin_of(self.endpoint)[1]
            advice = f"Check the spelling of ORG/MODEL, and that HF_ENDPOINT ({host}) is a Hub."
            return ModelNotFound(f"{host} knows nothing of {name} (404).", advice=advice)
        if status == 403:
            return AccessDenied(f"The Hub refuses access to {name} (403){_said(error, token)}")
        return HubError(f"The Hub refused the question about {name} ({status}){_said(error, token)}")

    def _gated(self, name: str, token: str | None) -> GatedModel:
        page = f"{self.endpoint}/{name}"
        if token is None:
            advice = f"Ask for access on {page}, log in with `hf auth login` or set HF_TOKEN, then start again."
            return GatedModel(f"{name} is gated, and nobody is logged in here.", advice=advice)
        advice = f"Ask for access on {page} with the account of this token, then start again."
        return GatedModel(f"{name} is gated, and the account of this token has no access to it.", advice=advice)

    def _unauthorized(self, error: HfHubHTTPError, name: str, token: str | None) -> HubError:
        """401 is what the Hub says to a stranger, also about a model that does not exist; to somebody it knows it says
        404. So with a token it means that the token is none."""
        if token is not None:
            return TokenRejected(f"The Hub does not accept the token (asked about {name}).")
        if isinstance(error, RepositoryNotFoundError):
            return _not_found(name, token)
        return TokenMissing(f"The Hub wants to know who asks about {name} (401).")


def _not_found(name: str, token: str | None) -> ModelNotFound:
    if token is None:
        advice = (
            "Check the spelling of ORG/MODEL. If the model is private, log in with `hf auth login` or set HF_TOKEN: "
            "to a stranger the Hub says the same of both."
        )
        return ModelNotFound(
            f"The Hub has no model {name}, or it is private and nobody is logged in here.", advice=advice
        )
    advice = "Check the spelling of ORG/MODEL. If the model is private, log in with an account that may read it."
    return ModelNotFound(f"The Hub has no model {name} that the account of this token may see.", advice=advice)


def _said(error: HfHubHTTPError, token: str | None) -> str:
    """The Hub's own words, on one short line and without the token, should it be quoted there."""
    words = _first_line(error.server_message or "")
    if token:
        words = words.replace(token, "…")
    return f": {words}" if words else "."


def _first_line(text: str) -> str:
    # JSON can spell half of a surrogate pair, which nothing that keeps or shows text would take.
    return " ".join(text.encode("utf-8", "replace").decode().split())[:160]
