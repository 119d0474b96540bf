"""Models as the Hub lists them, read into what decides here, and the wishes of somebody who looks for one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mlx_manager.domain.catalog import check_model_id, estimate_size, estimate_weights
from mlx_manager.domain.fit import Weights
from mlx_manager.domain.model_config import read_config
from mlx_manager.domain.quantisation import Quant, quant_of_name
from mlx_manager.errors import InvalidModelId

CAPABILITIES = ("vision", "tools", "thinking", "embedding", "audio")
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_PACKED = "U32"
_FLOATS = ("F16", "BF16", "F32")
_TASKS = {
    "vision": {"image-text-to-text", "visual-question-answering", "image-to-text", "video-text-to-text", "any-to-any"},
    "embedding": {"feature-extraction", "sentence-similarity", "text-ranking"},
    "audio": {"automatic-speech-recognition", "text-to-speech", "text-to-audio", "audio-text-to-text",
              "audio-classification", "audio-to-audio"},
}  # fmt: skip
_TAGS = {
    "vision": {"vision", "multimodal", "vlm", "mlx-vlm"},
    "tools": {"function-calling", "function calling", "tool-use", "tool-calling", "tools", "agent", "agentic"},
    "thinking": {"reasoning", "thinking", "chain-of-thought"},
    "embedding": {"sentence-transformers", "embeddings", "embedding", "text-embeddings-inference"},
    "audio": {"audio", "speech", "asr", "tts", "speech-recognition", "mlx-audio", "whisper"},
}  # fmt: skip
_FAMILIES = {
    "gpt_oss": "gpt-oss", "mixtral": "Mistral", "ministral": "Mistral", "mistral": "Mistral", "devstral": "Mistral",
    "codellama": "Llama", "deepseek": "DeepSeek", "smollm": "SmolLM", "smolvlm": "SmolLM", "internlm": "InternLM",
    "internvl": "InternVL", "glm": "GLM", "chatglm": "GLM", "olmo": "OLMo", "exaone": "EXAONE", "lfm": "LFM",
    "minicpm": "MiniCPM", "minimax": "MiniMax", "qwq": "Qwen", "kimi": "Kimi", "ernie": "ERNIE", "bailing": "Ling",
    "nemotron": "Nemotron", "starcoder": "StarCoder", "stablelm": "StableLM", "modernbert": "BERT", "bert": "BERT",
    "roberta": "BERT", "xlm": "BERT", "cohere": "Cohere", "command": "Cohere", "gpt": "GPT",
}  # fmt: skip
_LEADING = re.compile(r"[a-z]+")
_WELL_KNOWN = ("qwen", "llama", "gemma", "phi", "granite", "whisper", "falcon", "yi", "hunyuan", "jamba", "mamba")


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of a list. ``params``: weights as they are counted unpacked; ``weights_bytes``: exact, from the types
    and counts that the Hub read out of the files. Times as the Hub writes them (ISO 8601, UTC)."""

    model_id: str
    task: str | None
    family: str | None
    model_type: str | None
    params: int | None
    quant: Quant | None
    weights_bytes: int | None
    dtype_bytes: int
    downloads: int
    likes: int
    updated_at: str | None
    created_at: str | None
    licence: str | None
    gated: str | bool
    capabilities: tuple[str, ...]
    base_models: tuple[str, ...]
    is_mlx: bool
    trending: float

    @property
    def author(self) -> str:
        return self.model_id.partition("/")[0]

    @property
    def name(self) -> str:
        return self.model_id.partition("/")[2]

    @property
    def size_bytes(self) -> int | None:
        """Of the weights; where the Hub does not know them, what the name promises."""
        return self.weights_bytes if self.weights_bytes is not None else estimate_size(self.model_id)

    @property
    def weights(self) -> Weights | None:
        size = self.size_bytes
        return None if size is None else Weights(size, self.dtype_bytes, self.weights_bytes is not None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Entry:
        """Raises KeyError, TypeError for what `to_json` did not make."""
        values = {field.name: document[field.name] for field in fields(Entry)}
        values["quant"] = None if values["quant"] is None else Quant(**values["quant"])
        values |= {name: tuple(values[name]) for name in ("capabilities", "base_models")}
        return Entry(**values)


def read_entry(document: object) -> Entry | None:
    """A model as the Hub's API tells it; None for what is none or has a name that cannot be asked for."""
    if not isinstance(document, Mapping):
        return None
    model_id = document.get("id") or document.get("modelId")
    try:
        model_id = check_model_id(model_id if isinstance(model_id, str) else "")
    except InvalidModelId:
        return None
    name = model_id.partition("/")[2]
    tags = [tag for tag in _list(document.get("tags")) if isinstance(tag, str)][:500]
    config = document.get("config")
    read = read_config(config, name)
    task = _text(document.get("pipeline_tag"))
    quant = read.quant or quant_of_name(name) or next(filter(None, map(_quant_of_tag, tags)), None)
    params, weights_bytes, dtype_bytes = _counted(document.get("safetensors"), quant)
    if params is None:
        params = estimate_weights(model_id)
    gated = document.get("gated")
    return Entry(
        model_id=model_id,
        task=task,
        family=family_of(read.model_type, name),
        model_type=read.model_type,
        params=params,
        quant=quant,
        weights_bytes=weights_bytes,
        dtype_bytes=dtype_bytes,
        downloads=_count(document.get("downloads")),
        likes=_count(document.get("likes")),
        updated_at=_text(document.get("lastModified")),
        created_at=_text(document.get("createdAt")),
        licence=licence_of(tags, document.get("cardData")),
        gated=gated if gated in ("auto", "manual") else False,
        capabilities=capabilities_of(task, tags, read.has_vision, read.has_audio, chat_template_of(config)),
        base_models=base_models_of(tags),
        is_mlx="mlx" in tags or document.get("library_name") == "mlx",
        trending=float(_count(document.get("trendingScore"))),
    )


def family_of(model_type: str | None, name: str) -> str | None:
    """The line of models that one belongs to, as people call it: "Qwen", "Llama", "gpt-oss"."""
    for source in (model_type, name):
        lowered = (source or "").lower().replace("-", "_")
        for known, label in _FAMILIES.items():
            if lowered.startswith(known) or (source is name and f"_{known}" in f"_{lowered}"):
                return label
        for known in _WELL_KNOWN:
            if lowered.startswith(known) or (source is name and f"_{known}" in f"_{lowered}"):
                return known.capitalize()
        if source is model_type and (leading := _LEADING.match(lowered)):
            return leading[0].capitalize()
    return None


def capabilities_of(
    task: str | None, tags: Sequence[str], has_vision: bool, has_audio: bool, template: str
) -> tuple[str, ...]:
    """As far as the task, the tags, the config and the chat template tell."""
    lowered = {tag.lower() for tag in tags}
    found = {one for one, tasks in _TASKS.items() if task in tasks} | {one for one, of in _TAGS.items() if of & lowered}
    if has_vision:
        found.add("vision")
    if has_audio:
        found.add("audio")
    if re.search(r"\btools\b", template):
        found.add("tools")
    if "enable_thinking" in template or "<think>" in template or "reasoning_effort" in template:
        found.add("thinking")
    return tuple(one for one in CAPABILITIES if one in found)


def chat_template_of(config: object) -> str:
    """The template in a ``config`` as the Hub tells it, or in a ``tokenizer_config.json``."""
    if not isinstance(config, Mapping):
        return ""
    for part in (config, config.get("tokenizer_config"), config.get("processor_config")):
        template = part.get("chat_template") if isinstance(part, Mapping) else None
        if isinstance(template, str):
            return template[:200_000]
        if isinstance(template, list):
            return "\n".join(str(one.get("template")) for one in template if isinstance(one, Mapping))[:200_000]
    template = config.get("chat_template_jinja")
    return template[:200_000] if isinstance(template, str) else ""


def licence_of(tags: Sequence[str], card: object) -> str | None:
    """The licence's short name, by the tag that the Hub made of the card, or by the card."""
    for tag in tags:
        if tag.startswith("license:"):
            return tag.removeprefix("license:")[:80]
    said = card.get("license") if isinstance(card, Mapping) else None
    return said[:80] if isinstance(said, str) else None


def base_models_of(tags: Sequence[str]) -> tuple[str, ...]:
    """What this one was made from, by its tags."""
    found: dict[str, None] = {}
    for tag in tags:
        if tag.startswith("base_model:"):
            base = tag.rpartition(":")[2]
            if "/" in base and len(base) <= 200:
                found[base] = None
    return tuple(found)


def _counted(safetensors: object, quant: Quant | None) -> tuple[int | None, int | None, int]:
    """Parameters, bytes of the weights, and bytes of a value that is computed with. MLX packs several weights into one
    word and puts scales and biases beside them, which the Hub counts as they lie there."""
    counts = safetensors.get("parameters") if isinstance(safetensors, Mapping) else None
    if not isinstance(counts, Mapping) or not counts:
        return None, None, 2
    if any(type(count) is not int or count < 0 or dtype not in DTYPE_BYTES for dtype, count in counts.items()):
        return None, None, 2
    size = sum(count * DTYPE_BYTES[dtype] for dtype, count in counts.items())
    dtype_bytes = 4 if counts.get("F32") and not (counts.get("F16") or counts.get("BF16")) else 2
    return unpacked(counts, quant), size, dtype_bytes


def unpacked(counts: Mapping[str, int], quant: Quant | None) -> int | None:
    """How many weights so many values of each type stand for; None where that cannot be told."""
    packed = counts.get(_PACKED, 0)
    if not packed:
        return sum(count for dtype, count in counts.items() if dtype != "U8") or None
    if quant is None or quant.bits is None or not 1 <= quant.bits <= 8:
        return None
    weights = packed * 32 / quant.bits
    floats = sum(counts.get(dtype, 0) for dtype in _FLOATS)
    beside = 2 * weights / (quant.group_size or 64) if quant.mode == "affine" else 0
    return int(weights + max(0, floats - beside))


def _quant_of_tag(tag: str) -> Quant | None:
    return quant_of_name(tag) if re.fullmatch(r"\d-bit|mxfp4|nvfp4|mxfp8", tag) else None


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 1 <= len(value) <= 200 else None


def _count(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15 else 0
