"""JSON as it goes out, whatever text got in: half of a surrogate pair, which no UTF-8 has, must not cost an answer."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse


def encode(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


class Json(JSONResponse):
    """For everything that people, or a hub, had a hand in."""

    def render(self, content: Any) -> bytes:
        return encode(content)
