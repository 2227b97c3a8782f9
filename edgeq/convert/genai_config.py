"""genai_config.json: what onnxruntime-genai wants to know of a decoder's graph beside it.

Source: onnxruntime-genai 0.18, ``make_genai_config`` in models/builders/base.py, and its documentation.
"""

from __future__ import annotations

from typing import Any

from edgeq.source import ModelSource

# Any decoder with these inputs. The names of single families would add what our graphs do themselves.
_TYPE = "decoder"
_SEARCH: dict[str, tuple[type, ...]] = {
    "do_sample": (bool,),
    "temperature": (int, float),
    "top_k": (int,),
    "top_p": (int, float),
    "repetition_penalty": (int, float),
}


def genai_config(source: ModelSource, file_name: str, notes: list[str]) -> dict[str, Any]:
    """The contents for a graph of the ort dialect; raises FormatError for tokens that are no numbers.

    A note tells of what a user has to know.
    """
    hp = source.hp
    ends, own = sorted(source.end_tokens()), source.generation()
    if not ends:
        notes.append(
            "genai_config.json: the model names no end token, so generation ends at the length asked for"
        )
    begin, pad = (own.get(key) for key in ("bos_token_id", "pad_token_id"))
    names = {part: f"%d.{part}" for part in ("key", "value")}
    return {
        "model": {
            "type": _TYPE,
            "vocab_size": hp.vocab,
            "context_length": hp.context,
            "bos_token_id": begin if isinstance(begin, int) else 0,
            "eos_token_id": ends if len(ends) > 1 else next(iter(ends), hp.vocab),
            "pad_token_id": pad if isinstance(pad, int) else next(iter(ends), 0),
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": file_name,
                "hidden_size": hp.hidden,
                "head_size": hp.head_dim,
                "num_attention_heads": hp.n_heads,
                "num_key_value_heads": hp.n_kv_heads,
                "num_hidden_layers": hp.n_layers,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    **{f"past_{part}_names": f"past_key_values.{name}" for part, name in names.items()},
                },
                "outputs": {
                    "logits": "logits",
                    **{f"present_{part}_names": f"present.{name}" for part, name in names.items()},
                },
            },
        },
        "search": {"max_length": hp.context, "past_present_share_buffer": True} | _search(own),
    }


def _search(generation: dict[str, Any]) -> dict[str, Any]:
    """How the model's authors sample, as far as they say so."""
    return {key: generation[key] for key, kinds in _SEARCH.items() if isinstance(generation.get(key), kinds)}
