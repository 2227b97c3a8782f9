"""Chat templates: messages to the text that a model was trained to answer.

They come with models, so they are rendered in Jinja's sandbox, with the names that transformers gives them
(``transformers/utils/chat_template_utils.py``, ``_compile_jinja_template``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgeq.errors import FormatError, InputError
from edgeq.formats.gguf.vocab.chat import chat_templates
from edgeq.formats.gguf.vocab.keys import CHAT_TEMPLATE, SPECIAL_ID, TOKENS
from edgeq.formats.gguf.vocab.source import read_source

Message = Mapping[str, Any]  # "role" and "content", and what else the template reads

_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class ChatTemplate:
    """The template of the model at ``path``, and the texts of its special tokens (``bos_token``...)."""

    path: Path
    text: str
    special: Mapping[str, str]

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The text of a conversation, by default up to where the answer begins.

        ``variables`` are more names for the template, as ``tools``. Raises FormatError for a template that is
        broken or refuses the messages.
        """
        known = {"messages": messages, "tools": None, "documents": None} | dict(self.special) | variables
        try:
            template = _environment().from_string(self.text)
            return template.render(add_generation_prompt=add_generation_prompt, **known)
        except TemplateError as error:
            raise self._broken(error) from None
        except Exception as error:  # a template may divide by zero, or add a text to a number
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> FormatError:
        said = " ".join(str(error).split()) or type(error).__name__
        return FormatError(self.path, f"the chat template says: {said[:300]}")


def of_directory(path: Path) -> ChatTemplate | None:
    """The default template of a model directory; None where it has none. Raises FormatError."""
    source = read_source(path)
    text = chat_templates(source).get("default")
    if text is None:
        return None
    named = {
        f"{name}_token": _content(source.tokenizer_config, source.special_tokens_map, name) for name in _NAMED
    }
    return ChatTemplate(path, text, {name: token for name, token in named.items() if token is not None})


def of_gguf(path: Path, metadata: Mapping[str, Any]) -> ChatTemplate | None:
    """The default template of a GGUF file; None where it has none. Raises FormatError."""
    text = metadata.get(CHAT_TEMPLATE)
    if text is None:
        return None
    if not isinstance(text, str):
        raise FormatError(path, f"{CHAT_TEMPLATE} is not a text")
    tokens = metadata.get(TOKENS) or []
    special = {}
    for name, key in SPECIAL_ID.items():
        token = metadata.get(key)
        if name in _NAMED and isinstance(token, int) and 0 <= token < len(tokens):
            special[f"{name}_token"] = str(tokens[token])
    return ChatTemplate(path, text, special)


def needed(template: ChatTemplate | None, path: Path) -> ChatTemplate:
    """The template; raises InputError for a model that has none."""
    if template is None:
        raise InputError(
            f"{path}: has no chat template; give a plain prompt, or take the model's chat version"
        )
    return template


def _content(config: Mapping[str, Any], tokens_map: Mapping[str, Any], name: str) -> str | None:
    """The text of a special token, which is stored plainly or with its flags."""
    for stored in (config.get(f"{name}_token"), tokens_map.get(f"{name}_token")):
        text = stored.get("content") if isinstance(stored, dict) else stored
        if isinstance(text, str):
            return text
    return None


class _Generation(Extension):
    """``{% generation %}``: transformers marks the assistant's part with it; here it is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012  # as the base class has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Macro) -> str:
        text: str = caller()
        return text


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # local, as there
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
