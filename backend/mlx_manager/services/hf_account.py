"""Who we are to the Hub, and the token that says so: kept where `hf auth login` keeps it, and tested before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from mlx_manager.domain.account import Account
from mlx_manager.errors import CacheNotWritable, HubError, TokenRejected
from mlx_manager.services import drafts
from mlx_manager.services.hf_asking import HubAsker

WITHIN_S = 8.0
LONGEST = 500


class HubAccount:
    """Asks through ``hub``. ``token_file``: by default the library's own."""

    def __init__(self, hub: HubAsker, token_file: Path | None = None) -> None:
        self._hub = hub
        self._file = token_file or Path(constants.HF_TOKEN_PATH)

    async def account(self) -> Account:
        """Never raises for what the Hub says: a token that it refuses is what there is to tell."""
        try:
            token = await asyncio.to_thread(self._hub.token)
        except HubError as error:
            return Account(False, error=error.detail, advice=error.advice)
        if token is None:
            return Account(False)
        source = await asyncio.to_thread(self._source, token)
        try:
            return await self._who(token, source)
        except HubError as error:
            return Account(False, token_source=source, error=error.detail, advice=error.advice)

    async def keep(self, token: str) -> Account:
        """Test a token, and keep it for us and for `hf`. Raises TokenRejected, HubError, CacheNotWritable."""
        if not 1 <= len(token) <= LONGEST or not token.isascii() or not token.isprintable() or " " in token:
            raise TokenRejected("This is no token of the Hub: it is empty, too long, or holds what no token has.")
        account = await self._who(token, "file")
        await asyncio.to_thread(self._write, token)
        # HF_TOKEN goes before the file, for `hf` too.
        return await self.account() if await asyncio.to_thread(self._hub.token) != token else account

    async def forget(self) -> Account:
        """Remove the token that is kept; one in HF_TOKEN stays. Raises CacheNotWritable."""
        await asyncio.to_thread(self._remove)
        return await self.account()

    async def _who(self, token: str, source: str) -> Account:
        def ask(used: str | None) -> Mapping[str, Any]:
            told = self._hub.get(f"{self._hub.endpoint}/api/whoami-v2", used).json()
            if not isinstance(told, dict) or not isinstance(told.get("name"), str):
                raise TypeError("not an account")
            return told

        told = await self._hub.ask(ask, WITHIN_S, token=token)
        kind = told.get("type") if told.get("type") in ("user", "org") else None
        return Account(True, str(told["name"])[:200], kind, source, _reads_gated(told))

    def _source(self, token: str) -> str:
        try:
            return "file" if self._file.read_text(encoding="utf-8").strip() == token else "HF_TOKEN"
        except (OSError, UnicodeDecodeError):
            return "HF_TOKEN"

    def _write(self, token: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            drafts.replace_whole(self._file, token.encode(), mode=0o600)
        except OSError as error:
            raise _not_kept(self._file, error) from error

    def _remove(self) -> None:
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            raise _not_kept(self._file, error) from error


def _reads_gated(told: Mapping[str, Any]) -> bool | None:
    auth = told.get("auth")
    access = auth.get("accessToken") if isinstance(auth, Mapping) else None
    if not isinstance(access, Mapping):
        return None
    if access.get("role") in ("read", "write"):
        return True
    fine = access.get("fineGrained")
    return bool(fine.get("canReadGatedRepos")) if isinstance(fine, Mapping) else None


def _not_kept(file: Path, error: OSError) -> CacheNotWritable:
    return CacheNotWritable(
        f"The token cannot be kept or removed: {file}: {error.strerror}.",
        advice="Give this user write access to that folder, or set HF_TOKEN instead.",
    )
