"""The Hub as downloads need it: what a model is made of, where its bytes are, and whether it answers at all."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import huggingface_hub
from huggingface_hub.utils import paginate  # type: ignore[attr-defined]  # it is public

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.plan import Plan, PlanFile, make_plan
from mlx_manager.domain.reachability import Reachability
from mlx_manager.errors import HubError
from mlx_manager.services.hf_asking import HubAsker

REACHABLE_WITHIN_S = 5.0
# Hashes become file names, so they are held to their form here and not merely believed.
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubClient(HubAsker):
    """Implements `ports.Hub`."""

    async def plan(self, request: ModelRequest) -> Plan:
        """Commit, files, sizes and hashes of what was asked for, within ``deadline_s``. Raises HubError and its kinds.

        A gated model lists its files for everybody and refuses them only when they are fetched; so of such a model one
        file is asked for too, without its bytes, and the refusal comes here.
        """
        return await self.ask(lambda token: self._plan(request, token), about=request)

    async def reachable(self) -> Reachability:
        """Whether the Hub answers the smallest of questions within 5 s. Never raises for what the Hub or the way to it
        does; asked without the token, which is another matter."""
        started = time.monotonic()

        def first_model(token: str | None) -> None:
            self.get(f"{self.endpoint}/api/models", token, params={"limit": 1}).json()

        try:
            await self.ask(first_model, REACHABLE_WITHIN_S, stranger=True)
        except HubError as error:
            return Reachability(False, error=error.detail)
        return Reachability(True, latency_ms=round((time.monotonic() - started) * 1000, 1))

    def _plan(self, request: ModelRequest, token: str | None) -> Plan:
        told = self.model(request, token)
        commit = _formed(_SHA1, told.get("sha"))
        url = f"{self.endpoint}/api/models/{request.model_id}/tree/{commit}"
        entries = paginate(url, params={"recursive": "true"}, headers=self.headers(token))
        tree = [_plan_file(entry) for entry in entries if entry["type"] == "file"]
        allow, ignore = request.allow_patterns, request.ignore_patterns
        plan = make_plan(request.model_id, request.revision, commit, tree, allow, ignore)
        if told.get("gated"):
            file = self.resolve_url(request.model_id, commit, plan.files[0].path)
            huggingface_hub.get_hf_file_metadata(file, token=token or False, user_agent=self.user_agent)
        return plan


def _plan_file(entry: Mapping[str, Any]) -> PlanFile:
    """One file of the listing. Raises ValueError, KeyError or TypeError for one without a usable size or hash."""
    path, lfs, xet = entry["path"], entry.get("lfs"), entry.get("xetHash")
    size = lfs["size"] if lfs else entry["size"]
    if not isinstance(path, str) or type(size) is not int or size < 0:
        raise ValueError(f"no usable path or size: {path!r}, {size!r}")
    return PlanFile(
        path=path,
        size=size,
        blob_id=_formed(_SHA1, entry["oid"]),
        sha256=_formed(_SHA256, lfs["oid"]) if lfs else None,
        # A hint that only other programs use: malformed, it is left out.
        xet_hash=xet if isinstance(xet, str) and _SHA256.fullmatch(xet) else None,
    )


def _formed(form: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"not a hash: {value!r}")
    return value
