"""Ollama's Modelfile: written, and read as Ollama reads it.

Sources: Ollama's docs/modelfile.md; parser/parser.go (commands, quotes, comments) and api/types.go (``Options``, which
are the names and types of parameters); template/template.go (Go templates with ``.Messages``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

COMMANDS = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
_INT, _FLOAT, _BOOL, _TEXT = (
    re.compile(r"-?\d+"), re.compile(r"-?\d+(\.\d+)?([eE]-?\d+)?"), re.compile(r"true|false"), re.compile(r".*", re.S),
)  # fmt: skip
PARAMETERS: dict[str, re.Pattern[str]] = {
    **dict.fromkeys(("num_ctx", "num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_batch", "num_gpu",
                     "main_gpu", "num_thread", "draft_num_predict"), _INT),
    **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty",
                     "frequency_penalty"), _FLOAT),
    "use_mmap": _BOOL,
    "stop": _TEXT,
}  # fmt: skip
_QUOTES = '"""'
_ACTION = re.compile(r"\{\{-?\s*(?P<word>\w+)?(?P<rest>.*?)-?\}\}", re.S)
_OPENS, _CLOSE = ("if", "range", "with", "block", "define"), "end"


class ModelfileError(ValueError):
    """What a Modelfile's text does not follow; the message has the line."""


@dataclass
class Modelfile:
    """The commands of a file: ``parameters`` in order, others by their last value."""

    commands: dict[str, str] = field(default_factory=dict)
    parameters: list[tuple[str, str]] = field(default_factory=list)


def write(base: str, parameters: list[tuple[str, str]], template: str = "", system: str = "") -> str:
    """The text of a Modelfile; raises ModelfileError for texts that its quotes cannot hold."""
    lines = [f"FROM {base}"]
    for command, text in (("TEMPLATE", template), ("SYSTEM", system)):
        if text:
            lines.append(f"{command} {_quoted(text)}")
    lines += [f"PARAMETER {name} {_quoted(value) if name == 'stop' else value}" for name, value in parameters]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if _QUOTES in text or text.endswith('"'):
        raise ModelfileError(f"{text[:40]!r} ends in or holds the quotes of a Modelfile")
    return f"{_QUOTES}{text}{_QUOTES}" if "\n" in text or '"' in text else f'"{text}"'


def parse(text: str) -> Modelfile:
    """The commands of a Modelfile; raises ModelfileError for a line that Ollama refuses."""
    found, position, line = Modelfile(), 0, 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        row = text[position:end]
        if not row.strip() or row.lstrip().startswith("#"):
            position, line = end + 1, line + 1
            continue
        command, _, value = row.strip().partition(" ")
        if command.lower() not in COMMANDS:
            raise ModelfileError(f"line {line}: {command!r} is no command")
        name, value = (value.strip().partition(" ")[::2]) if command.lower() == "parameter" else ("", value)
        value, after = _value(text, value.strip(), end, line)
        line += text.count("\n", position, after + 1)
        position = after + 1
        _store(found, command.lower(), name, value, line)
    if "from" not in found.commands:
        raise ModelfileError("has no FROM line")
    return found


def _value(text: str, first: str, end: int, line: int) -> tuple[str, int]:
    """A value without its quotes, and where the last line that it fills ends."""
    for quote in (_QUOTES, '"'):
        if not first.startswith(quote):
            continue
        start = text.rindex(first, 0, end) + len(quote)
        close = text.find(quote, start)
        if close < 0:
            raise ModelfileError(f"line {line}: quotes are opened and not closed")
        after = text.find("\n", close)
        after = len(text) if after < 0 else after
        if text[close + len(quote) : after].strip():
            raise ModelfileError(f"line {line}: text behind the closing quotes")
        return text[start:close], after
    if not first:
        raise ModelfileError(f"line {line}: has no value")
    return first, end


def _store(found: Modelfile, command: str, name: str, value: str, line: int) -> None:
    if command != "parameter":
        found.commands[command] = value
        if command == "template":
            check_template(value)
        return
    kind = PARAMETERS.get(name.lower())
    if kind is None:
        raise ModelfileError(f"line {line}: {name!r} is no parameter")
    if not kind.fullmatch(value):
        raise ModelfileError(f"line {line}: {name} cannot be {value!r}")
    found.parameters.append((name.lower(), value))


def check_template(text: str) -> None:
    """Raise ModelfileError for a Go template whose actions are not closed, or that shows no message."""
    depth = 0
    rest = _ACTION.sub("", text)
    if "{{" in rest or "}}" in rest:
        raise ModelfileError("the template has braces that open or close nothing")
    for action in _ACTION.finditer(text):
        word = action["word"] or ""
        depth += (word in _OPENS) - (word == _CLOSE)
        if depth < 0:
            raise ModelfileError("the template has an end too many")
    if depth:
        raise ModelfileError("the template has an if or range without end")
    if not re.search(r"\{\{[^}]*\.(Messages|Prompt)", text):
        raise ModelfileError("the template shows neither .Messages nor .Prompt")


def go_template(roles: Mapping[str, tuple[str, str]], answer_begins: str) -> str:
    """Messages around which stand these texts, as a Go template; raises ModelfileError for texts with braces.

    After the last message of somebody else the answer begins; an unfinished answer stays open.
    """
    texts = [answer_begins, *(text for pair in roles.values() for text in pair)]
    if any("{{" in text or "}}" in text for text in texts):
        raise ModelfileError("the chat template's texts hold braces of Go templates")
    branches: list[str] = []
    for role, (before, after) in roles.items():
        end = f"{{{{ if not $last }}}}{after}{{{{ end }}}}" if role == "assistant" else after
        word = "if" if not branches else "else if"
        branches.append(f'{{{{ {word} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{end}')
    return (
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        + "".join(branches)
        + "{{ end }}"
        + f'{{{{ if and $last (ne .Role "assistant") }}}}{answer_begins}{{{{ end }}}}'
        + "{{ end }}"
    )
