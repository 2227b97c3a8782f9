"""tokenizer.json's post-processor: which tokens it puts around a text.

Upstream: `tokenizers` ``processors/{template,bert,roberta,sequence}.rs``; ``gguf/vocab.py``
(``SpecialVocab._try_load_from_tokenizer_json``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq.formats.gguf.vocab.keys import ADD_SEP
from edgeq.formats.gguf.vocab.source import Source, flatten

_ONE = "llama.cpp adds one token before and one after: use a simpler template"


@dataclass(frozen=True)
class Surround:
    """The token before and after every text, None for none; ``decided`` where a post-processor says so.

    ``separated``: between two texts of a pair stands one more than after each, as in RoBERTa's ``</s></s>``.
    """

    before: str | None = None
    after: str | None = None
    decided: bool = False
    separated: bool = False

    @property
    def keys(self) -> dict[str, bool]:
        """What llama.cpp puts between a query and a document (``format_prompt_rerank``), where it matters."""
        return {} if self.before is None or self.after is None else {ADD_SEP: self.separated}


def surrounding_tokens(source: Source) -> Surround:
    """What the post-processor adds. Raises UnsupportedTokenizerError where llama.cpp cannot add the same."""
    surround = Surround()
    for field, step in flatten(source.section("post_processor"), "post_processor", "processors"):
        if step.get("type") == "ByteLevel":
            surround = Surround(surround.before, surround.after, decided=True)
        elif step.get("type") in ("BertProcessing", "RobertaProcessing"):
            around = _named(source, field, step, "cls"), _named(source, field, step, "sep")
            surround = Surround(*around, decided=True, separated=step["type"] == "RobertaProcessing")
        elif step.get("type") == "TemplateProcessing":
            surround = _from_template(source, field, step)
        else:
            raise source.unsupported(
                f"{field} is {step.get('type')!r}", "llama.cpp has no such post-processor"
            )
    return surround


def _named(source: Source, field: str, step: dict[str, Any], name: str) -> str:
    pair = step.get(name)
    if not isinstance(pair, list) or not pair or not isinstance(pair[0], str):
        raise source.broken(f"{field}.{name} is not a token and its id")
    return pair[0]


def _from_template(source: Source, field: str, step: dict[str, Any]) -> Surround:
    single = step.get("single")
    if not isinstance(single, list) or not all(isinstance(part, dict) for part in single):
        raise source.broken(f"{field}.single is not a list")
    places = [i for i, part in enumerate(single) if "Sequence" in part]
    if len(places) != 1:
        raise source.unsupported(f"{field}.single has {len(places)} sequences", _ONE)
    ids = [_token(source, field, part) for part in single[: places[0]] + single[places[0] + 1 :]]
    before, after = ids[: places[0]], ids[places[0] :]
    if len(before) > 1 or len(after) > 1:
        raise source.unsupported(f"{field}.single adds {len(before)} and {len(after)} tokens", _ONE)
    separated = _between(step.get("pair")) > len(after)
    return Surround(next(iter(before), None), next(iter(after), None), True, separated)


def _between(pair: Any) -> int:
    """How many tokens stand between the two texts of a pair; 0 where the template is none of two texts."""
    parts = pair if isinstance(pair, list) else []
    places = [i for i, part in enumerate(parts) if isinstance(part, dict) and "Sequence" in part]
    return places[1] - places[0] - 1 if len(places) == 2 else 0


def _token(source: Source, field: str, part: dict[str, Any]) -> str:
    special = part.get("SpecialToken")
    name = special.get("id") if isinstance(special, dict) else None
    if not isinstance(name, str):
        raise source.broken(f"{field}.single has a part that is no token: {part}")
    return name
