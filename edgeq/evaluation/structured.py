"""Whether a model answers in the form that was asked for: prompts with a JSON schema, and the share of valid answers.

A JSONL file of prompts has one object a line: ``{"prompt": "...", "schema": {...}}``, or ``"messages": [...]`` instead
of the prompt, which go through the model's chat template. An answer is valid where it begins with a JSON value, in a
code fence or not, that the schema (JSON Schema, draft 2020-12 unless it names another) allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.calibration.text import read_text
from edgeq.chat import Message
from edgeq.errors import InputError
from edgeq.evaluation.statistics import share_interval

_FENCE = re.compile(r"\s*```(?:json)?\s*\n")
_SHOWN = 3  # answers that were not valid


@dataclass(frozen=True)
class Prompt:
    """What to ask, as a text or as messages, and what the answer must be."""

    prompt: str | tuple[Message, ...]
    schema: Any


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a JSONL file; raises InputError naming the line that is wrong."""
    return [_prompt(path, i, line) for i, line in enumerate(read_text(path).lines(), start=1)]


def _prompt(path: Path, number: int, line: str) -> Prompt:
    from jsonschema import SchemaError, validators

    where = f"{path}: line {number}"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON ({error})") from None
    if not isinstance(value, dict) or "schema" not in value or ("prompt" in value) == ("messages" in value):
        raise InputError(f'{where}: write {{"prompt": "...", "schema": {{...}}}}, or "messages" for "prompt"')
    unknown = sorted(value.keys() - {"prompt", "messages", "schema"})
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}")
    schema = value["schema"]
    if not isinstance(schema, bool | dict) or (
        isinstance(schema, dict) and not isinstance(schema.get("$schema", ""), str)
    ):
        raise InputError(f"{where}: the schema is none, but {schema!r:.50}")
    try:
        validators.validator_for(schema, validators.Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        raise InputError(f"{where}: the schema is none ({error.message[:200]})") from None
    return Prompt(_asked(where, value), schema)


def _asked(where: str, value: dict[str, Any]) -> str | tuple[Message, ...]:
    prompt, messages = value.get("prompt"), value.get("messages")
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(messages, list) and messages and all(map(_is_message, messages)):
        return tuple({"role": one["role"], "content": one["content"]} for one in messages)
    raise InputError(
        f'{where}: "prompt" must be a text, "messages" a list of {{"role": ..., "content": ...}}'
    )


def _is_message(one: object) -> bool:
    return isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("role", "content"))


def problem(answer: str, schema: Any) -> str | None:
    """What is wrong with an answer, in a few words; None where it is valid.

    Nothing is loaded that a schema refers to."""
    from jsonschema import validators
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    text = _FENCE.sub("", answer, count=1) if _FENCE.match(answer) else answer
    try:
        value, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return "does not begin with JSON"
    kind = validators.validator_for(schema, validators.Draft202012Validator)
    try:
        error = best_match(kind(schema, registry=Registry()).iter_errors(value))
    except Unresolvable as missing:
        raise InputError(f"the schema refers to {missing.ref}, which is not in it") from None
    except RecursionError:
        raise InputError(
            "the schema refers to itself without an end; mend it, or leave the prompt out"
        ) from None
    return None if error is None else f"{error.json_path}: {error.message}"[:200]


def check_answers(
    generate: Callable[[str | tuple[Message, ...]], str],
    prompts: Sequence[Prompt],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The share of valid answers with its 95 % interval (Wilson's), the share that is JSON, and what was wrong."""
    wrong: list[dict[str, Any]] = []
    for number, one in enumerate(prompts, start=1):
        answer = generate(one.prompt)
        found = problem(answer, one.schema)
        if found is not None:
            wrong.append({"prompt": number, "problem": found, "answer": answer[:500]})
        progress(number, len(prompts))
    count, valid = len(prompts), len(prompts) - len(wrong)
    no_json = sum(one["problem"] == "does not begin with JSON" for one in wrong)
    low, high = share_interval(valid, count)
    return {
        "prompts": count,
        "valid": valid / count,
        "valid_low": low,
        "valid_high": high,
        "json": 1 - no_json / count,
        "wrong": wrong[:_SHOWN],
    }
