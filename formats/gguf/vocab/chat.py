"""The chat template, wherever this generation of `transformers` put it.

Upstream: ``gguf/vocab.py`` (``SpecialVocab``), ``gguf/gguf_writer.py`` (``add_chat_template``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgeq.formats.gguf.vocab.keys import CHAT_TEMPLATE, CHAT_TEMPLATES
from edgeq.formats.gguf.vocab.source import Source, read_json_object


def chat_template_keys(source: Source) -> dict[str, Any]:
    """The metadata of the default template and of the named ones. Raises FormatError for bad JSON."""
    named = chat_templates(source)
    keys: dict[str, Any] = {}
    others = sorted(name for name in named if name != "default")
    for name in others:
        keys[f"{CHAT_TEMPLATE}.{name}"] = named[name]
    if others:
        keys[CHAT_TEMPLATES] = others
    if "default" in named:
        keys[CHAT_TEMPLATE] = named["default"]
    return keys


def chat_templates(source: Source) -> dict[str, str]:
    """Templates by name; tokenizer_config.json, then chat_template.jinja, then chat_template.json."""
    configured = source.tokenizer_config.get("chat_template")
    directory = source.path.parent
    if configured is None and (directory / "chat_template.jinja").is_file():
        extra = sorted((directory / "additional_chat_templates").glob("*.jinja"))
        return {"default": _text(directory / "chat_template.jinja")} | {p.stem: _text(p) for p in extra}
    if configured is None:
        configured = read_json_object(directory / "chat_template.json").get("chat_template")
    if isinstance(configured, str):
        return {"default": configured}
    named = {}
    for choice in configured if isinstance(configured, list) else []:
        name, template = choice.get("name"), choice.get("template")
        if isinstance(name, str) and name and isinstance(template, str):
            named[re.sub("[^A-Za-z0-9]", "_", name)] = template
    return named


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
