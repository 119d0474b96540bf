"""Load a model offline by its repository id and answer one question, greedily; run in a process of its own.

    HF_HUB_OFFLINE=1 HF_HOME=… python generate.py ORG/NAME "What is the capital of France?"

prints one JSON object, `answer` and `load_seconds`. In its own process because importing mlx_lm lowers the limit of
open files, and because `HF_HOME` and `HF_HUB_OFFLINE` count only before the import.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final

MAX_TOKENS: Final = 48


def main(repo_id: str, question: str) -> None:
    from mlx_lm import generate, load

    begin = time.monotonic()
    loaded: Any = load(repo_id)
    model, tokenizer = loaded
    load_seconds = time.monotonic() - begin
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
    answer = generate(model, tokenizer, prompt, max_tokens=MAX_TOKENS)
    print(json.dumps({"answer": answer.strip(), "load_seconds": round(load_seconds, 2)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
