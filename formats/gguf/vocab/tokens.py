"""The list of tokens and their types, one for each row of the embedding.

Upstream: ``conversion/base.py`` (``get_vocab_base``, ``does_token_look_special``).
"""

from __future__ import annotations

from edgeq.formats.gguf.vocab.keys import TokenType
from edgeq.formats.gguf.vocab.source import Source

_SPECIAL_WORDS = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
_SPECIAL_BRACKETS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))


def token_list(source: Source, vocab_size: int | None) -> tuple[list[str], list[TokenType]]:
    """Tokens and types by id, holes and the tail up to ``vocab_size`` filled with unused ``[PADn]``.

    ``vocab_size`` is the number of rows of the embedding; None takes config.json's, or the highest id.
    Raises FormatError for two tokens with one id, UnsupportedTokenizerError for an id past the embedding, or one that
    `tokenizers` would not give.
    """
    texts, types = _by_id(source)
    highest = max(texts)
    configured = source.config.get("vocab_size")
    rows = vocab_size or (configured if isinstance(configured, int) else 0) or highest + 1
    if highest >= rows:
        raise source.unsupported(
            f"token {texts[highest]!r} has id {highest}, but the embedding has {rows} rows",
            "resize the model's embedding to the tokenizer, or take the tokenizer it was trained with",
        )
    tokens = [texts.get(i, f"[PAD{i}]") for i in range(rows)]
    return tokens, [types.get(i, TokenType.UNUSED) for i in range(rows)]


def require_distinct(source: Source, tokens: list[str]) -> None:
    """llama.cpp aborts the process when two ids have one text; raise UnsupportedTokenizerError instead."""
    seen: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if token in seen:
            raise source.unsupported(
                f"tokens {seen[token]} and {i} are both written {token!r}",
                "rename one of them in tokenizer.json",
            )
        seen[token] = i


def looks_special(token: str) -> bool:
    """Whether a token is a control token by its looks: some models forget to mark theirs."""
    return token in _SPECIAL_WORDS or any(
        token.startswith(opening) and token.endswith(closing) for opening, closing in _SPECIAL_BRACKETS
    )


def _require_next_ids(source: Source) -> None:
    """Raise where an added token's id is not the next free one, which `tokenizers` gives it whatever the file says.

    Upstream: `tokenizers` ``AddedVocabulary::add_tokens``.
    """
    vocab = source.vocabulary()
    given: dict[str, int] = {}
    free = len(vocab)
    for i, added in enumerate(source.added_tokens()):
        token = added["content"]
        given[token] = vocab.get(token, given.get(token, free))
        free = max(free, given[token] + 1)
        if given[token] != added["id"]:
            raise source.unsupported(
                f"added_tokens[{i}] ({token!r}) has id {added['id']}, where tokenizers counts {given[token]}: the ids "
                "have a hole",
                "number the added tokens from the end of model.vocab on",
            )


def _by_id(source: Source) -> tuple[dict[int, str], dict[int, TokenType]]:
    vocab = source.vocabulary()
    texts = {token_id: token for token, token_id in vocab.items()}
    if len(texts) != len(vocab):
        raise source.broken("model.vocab gives one id to two tokens")
    types = dict.fromkeys(texts, TokenType.NORMAL)
    for i, added in enumerate(source.added_tokens()):
        token, token_id = added["content"], added["id"]
        if vocab.get(token, token_id) != token_id or texts.get(token_id, token) != token:
            raise source.broken(f"added_tokens[{i}] ({token!r}, id {token_id}) contradicts model.vocab")
        if added.get("single_word"):
            raise source.unsupported(
                f"added_tokens[{i}].single_word is true",
                "llama.cpp matches a token anywhere: set it to false",
            )
        special = bool(added.get("special")) or looks_special(token)
        texts[token_id] = token
        types[token_id] = TokenType.CONTROL if special else TokenType.USER_DEFINED
    _require_next_ids(source)
    return texts, types
