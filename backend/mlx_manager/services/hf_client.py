"""The Hub as downloads need it: what a model is made of, where its bytes are, and whether it answers at all."""

from __future__ import annotations

import re
import time

from huggingface_hub import ModelInfo
from huggingface_hub.hf_api import RepoFile

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
            for _ in self.api(token).list_models(limit=1):
                break

        try:
            await self.ask(first_model, REACHABLE_WITHIN_S, stranger=True)
        except HubError as error:
            return Reachability(False, error=error.detail)
        return Reachability(True, latency_ms=round((time.monotonic() - started) * 1000, 1))

    def _plan(self, request: ModelRequest, token: str | None) -> Plan:
        api = self.api(token)
        info: ModelInfo = api.model_info(request.model_id, revision=request.revision)
        commit = _formed(_SHA1, info.sha)
        entries = api.list_repo_tree(request.model_id, recursive=True, revision=commit)
        tree = [_plan_file(entry) for entry in entries if isinstance(entry, RepoFile)]
        allow, ignore = request.allow_patterns, request.ignore_patterns
        plan = make_plan(request.model_id, request.revision, commit, tree, allow, ignore)
        if info.gated:
            api.get_hf_file_metadata(url=self.resolve_url(request.model_id, commit, plan.files[0].path))
        return plan


def _plan_file(entry: RepoFile) -> PlanFile:
    """One file of the listing. Raises ValueError for one without a usable size or hash."""
    # The library's types are what it hopes for; these are what came over the wire.
    path: object = entry.path
    size: object = entry.lfs.size if entry.lfs else entry.size
    xet: object = entry.xet_hash
    if not isinstance(path, str) or type(size) is not int or size < 0:
        raise ValueError(f"no usable path or size: {path!r}, {size!r}")
    return PlanFile(
        path=path,
        size=size,
        blob_id=_formed(_SHA1, entry.blob_id),
        sha256=_formed(_SHA256, entry.lfs.sha256) if entry.lfs else None,
        # A hint that only other programs use: malformed, it is left out.
        xet_hash=xet if isinstance(xet, str) and _SHA256.fullmatch(xet) else None,
    )


def _formed(form: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"not a hash: {value!r}")
    return value
