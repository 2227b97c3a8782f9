"""llama.cpp's ``tokenizer.ggml.pre`` names, and the splits each of them stands for.

Each row was compared with llama.cpp token by token (``tests/formats/gguf/vocab``); upstream's regexes are
in ``src/llama-vocab.cpp`` (``llm_tokenizer_bpe``), its flags in ``llama_vocab::impl::load``.

Three things no name can say, and llama.cpp does its own way for all:

- it never normalizes. A row with ``nfc`` is the name that models with an NFC normalizer carry; text that
  is not in NFC (a letter and a combining accent) gets other tokens in llama.cpp than in `tokenizers`.
  Where only one of the two has a row, it serves both;
- ``lstrip``/``rstrip`` of an added token: white space beside it stays;
- which characters are letters, digits … follows each side's Unicode version.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.formats.gguf.vocab import regexes as r


@dataclass(frozen=True)
class PreType:
    """One behaviour of llama.cpp: ``names[0]`` is written, all names are read.

    ``splits`` are applied one after the other, each isolating its matches, before bytes become characters.
    ``add_bos`` is llama.cpp's default where the file does not say. ``differs`` says where llama.cpp's
    pieces are not those of `tokenizers`.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    ignore_merges: bool = False
    nfc: bool = False
    add_bos: bool = False
    differs: str = ""


_CASE = "a non-ASCII letter counts as capital and as small: 'caféÉté' stays one piece"
_MARKS = _CASE + "; a combining mark is no part of a word"
_CJK_SPACES = "white space from U+2000 on is not in its ranges of CJK and punctuation"
_ASCII_THOUSANDS = "only ASCII digits are grouped by thousands"
_DEEPSEEK_LLM = (r.NEWLINE, r.DEEPSEEK_LETTERS, r.DEEPSEEK_PUNCTUATION, r.DEEPSEEK_TRAILING, r.DEEPSEEK_CJK)
_DEEPSEEK_CODER = (r.NEWLINE, r.DEEPSEEK_CODER_LETTERS, r.DEEPSEEK_CODER_PUNCTUATION, r.DEEPSEEK_CJK)
_GPT2_NAMES = (
    *("gpt-2", "phi-2", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code"),
    *("gigachat", "a.x-4.0", "mellum", "roberta-bpe", "exaone4", "jais", "trillion", "granite-docling"),
)

PRE_TYPES: tuple[PreType, ...] = (
    PreType(_GPT2_NAMES, (r.GPT2,)),
    PreType(("olmo", "mpt", "modern-bert"), (r.GPT2,), nfc=True),
    PreType(
        ("smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"), (r.DIGIT, r.GPT2)
    ),
    PreType(("command-r",), (r.DIGIT, r.GPT2), nfc=True),
    PreType(
        (
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ),
        (r.LLAMA3,),
        ignore_merges=True,
        add_bos=True,
    ),
    PreType(("glm4", "glm5"), (r.LLAMA3,), ignore_merges=True),
    PreType(("dbrx", "smaug-bpe", "chatglm-bpe"), (r.LLAMA3,)),
    PreType(("jais-2",), (r.JAIS2,)),
    PreType(
        ("qwen2", "stablelm2", "kormo", "f2llmv2", "megrez", "hunyuan", "solar-open"), (r.QWEN2,), nfc=True
    ),
    PreType(("deepseek-r1-qwen", "grok-2", "bailingmoe", "bailingmoe2", "llada-moe"), (r.QWEN2,)),
    PreType(("qwen35",), (r.QWEN35,), nfc=True),
    PreType(("ufakzeka",), (r.UFAKZEKA,)),
    PreType(("seed-coder",), (r.SEED_CODER,)),
    PreType(("laguna",), (r.LINES, r.QWEN2)),
    PreType(("minicpm5",), (r.DIGITS_3, r.MINICPM5), ignore_merges=True),
    PreType(("exaone-moe",), (r.EXAONE_MOE,)),
    PreType(("deepseek-llm",), (*_DEEPSEEK_LLM, r.DIGITS), differs=_CJK_SPACES),
    PreType(("deepseek-coder",), (*_DEEPSEEK_CODER, r.DIGIT), differs=_CJK_SPACES),
    PreType(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), (r.DIGITS_3, r.DEEPSEEK3_CJK, r.DEEPSEEK3)
    ),
    PreType(("bloom", "poro-chat", "gpt3-finnish"), (r.BLOOM,)),
    PreType(("viking",), (r.BLOOM, r.DIGIT)),
    PreType(("superbpe",), (r.DIGITS, r.THOUSANDS), differs=_ASCII_THOUSANDS),
    PreType(("falcon",), (r.FALCON_PUNCTUATION, r.GPT2, r.ASCII_DIGITS_3)),
    PreType(("default",), (r.DEFAULT_PUNCTUATION, r.GPT2, r.DIGITS, r.ASCII_DIGITS_3)),
    PreType(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), (r.GPT4O,), differs=_MARKS),
    PreType(("granite-embed-multi-97m",), (r.GPT4O,), ignore_merges=True, differs=_CASE),
    PreType(("tekken",), (r.TEKKEN,), ignore_merges=True, add_bos=True, differs=_MARKS),
)
_BY_NAME = {name: row for row in PRE_TYPES for name in row.names}


def pre_type_named(name: str) -> PreType | None:
    """The row that llama.cpp's name stands for; None for a name that is not in the table."""
    return _BY_NAME.get(name)


def pre_types_splitting(splits: tuple[str, ...], *, nfc: bool) -> list[PreType]:
    """The rows with these splits, those that agree about NFC first."""
    rows = [row for row in PRE_TYPES if row.splits == splits]
    return sorted(rows, key=lambda row: row.nfc != nfc)
