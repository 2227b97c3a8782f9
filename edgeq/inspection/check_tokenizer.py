"""Whether a file's vocabulary is whole and fits its embeddings; what ``llama_vocab::impl::load`` refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from edgeq.formats.gguf.reader import GGUFFile
from edgeq.inspection.about import ARCHITECTURE, is_model
from edgeq.inspection.findings import Finding, error, warning

_PREFIX = "tokenizer.ggml."
_MODEL, _TOKENS = _PREFIX + "model", _PREFIX + "tokens"
_PER_TOKEN = (_PREFIX + "scores", _PREFIX + "token_type")
_NO_VOCABULARY = ("none", "no_vocab")
_NO_TOKEN = (1 << 32) - 1  # -1, which converters write for a token that there is not
_CONVERT = "convert the model again, with its own tokenizer files"


def tokenizer_findings(file: GGUFFile) -> Iterator[Finding]:
    if not is_model(file):
        return
    model = file.metadata.get(_MODEL)
    tokens = file.metadata.get(_TOKENS)
    if model is None:
        yield error(_MODEL, "is missing, and llama.cpp does not load the model without it", _CONVERT)
    elif model in _NO_VOCABULARY:
        return
    elif not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        yield error(_TOKENS, "is missing or no list of texts: there is no vocabulary", _CONVERT)
    if isinstance(tokens, list):
        yield from _duplicates(tokens)
        yield from _lengths(file, len(tokens))
        yield from _ids(file, len(tokens))
        yield from _rows(file, len(tokens))
    if model == "gpt2":
        yield from _byte_pairs(file)


def _duplicates(tokens: list[int] | list[float] | list[bool] | list[str]) -> Iterator[Finding]:
    named = Counter(token or f"[EMPTY_{i}]" for i, token in enumerate(tokens))  # as llama.cpp names the empty
    twice = [token for token, count in named.items() if count > 1]
    if twice:
        what = f"{len(twice):,} tokens stand there more than once, first {twice[0]!r}: llama.cpp aborts"
        yield error(_TOKENS, what, "give each token a text of its own, such as [PAD17]")


def _lengths(file: GGUFFile, n_tokens: int) -> Iterator[Finding]:
    for key in _PER_TOKEN:
        value = file.metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, list):
            yield error(key, "is no list", _CONVERT)
        elif len(value) < n_tokens:
            what = f"has {len(value):,} items for {n_tokens:,} tokens: llama.cpp does not load the model"
            yield error(key, what, _CONVERT)
        elif len(value) > n_tokens:
            what = f"has {len(value):,} items for {n_tokens:,} tokens: one of the two lists is wrong"
            yield warning(key, what, _CONVERT)


def _ids(file: GGUFFile, n_tokens: int) -> Iterator[Finding]:
    for key, value in file.metadata.items():
        if not (key.startswith(_PREFIX) and key.endswith("_token_id")) or value == _NO_TOKEN:
            continue
        if not isinstance(value, int) or not 0 <= value < n_tokens:
            what = f"{value} is not the number of one of the {n_tokens:,} tokens"
            yield error(key, what, "set it to the right token's number, or leave the key out")


def _rows(file: GGUFFile, n_tokens: int) -> Iterator[Finding]:
    for name in ("token_embd.weight", "output.weight"):
        tensor = file.tensors.get(name)
        if tensor is not None and len(tensor.shape) == 2 and tensor.n_rows != n_tokens:
            what = f"has {tensor.n_rows:,} rows for {n_tokens:,} tokens: llama.cpp does not load the model"
            yield error(name, what, "pad the vocabulary or the matrix to one length and convert again")
    key = f"{file.metadata.get(ARCHITECTURE)}.vocab_size"
    size = file.metadata.get(key)
    if size is not None and size != n_tokens:
        yield warning(key, f"says {size}, but there are {n_tokens:,} tokens", _CONVERT)


def _byte_pairs(file: GGUFFile) -> Iterator[Finding]:
    if _PREFIX + "merges" not in file.metadata:
        what = "is missing, and llama.cpp does not load a byte-pair vocabulary without it"
        yield error(_PREFIX + "merges", what, _CONVERT)
    if _PREFIX + "pre" not in file.metadata:
        what = "is missing: llama.cpp splits text by its default rule, which may not be this model's"
        yield warning(_PREFIX + "pre", what, _CONVERT)
