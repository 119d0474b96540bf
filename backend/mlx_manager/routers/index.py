"""The start page: what this is and where its calls are. No script, nothing from the network."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter()

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MLX Manager</title>
<h1>MLX Manager</h1>
<p>Finds, downloads, verifies and keeps MLX models from the Hugging Face Hub.</p>
<ul>
<li><a href="/api/models/downloads">Downloads</a></li>
<li><a href="/api/models/local">Models on this machine</a></li>
<li><a href="/api/system">This system</a></li>
<li><a href="/openapi.json">The API (OpenAPI)</a></li>
</ul>
<p>Start one: <code>mlx-manager pull mlx-community/Qwen3-0.6B-4bit</code></p>
</html>
"""


@router.get("/", include_in_schema=False)
async def index() -> HTMLResponse:
    return HTMLResponse(_PAGE, headers={"Cache-Control": "no-cache"})
