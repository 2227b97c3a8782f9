"""llama.cpp as the oracle: a vocabulary-only GGUF file from metadata, and the ids it gives a text."""

from __future__ import annotations

import ast
import json
import random
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest

Encode = Callable[..., list[int]]

PLAIN = (
    "def area(r):\n    'Return it.'\n\tif r >= 10 and r != 3.14159:  # ok?\n        return {\"a\": [r**2]}\n"
    "I've seen that they're WE'LL, it's he'd i'm CAMELCase HTTPServer2Go snake_case x1y22z333 "
    "1234567 0x1F\r\n  two   spaces\n\n\n   \t\t tabs \n \n trailing   \r  lines "
    "\x00\x01\x0b\x0c\x1b\x1f\x7f done!?... (a|b) <c> $5+`x`~^\n"
    "naïve café Ünïcode straße — “quotes” ‘it’ … £9 €10 ½² ١٢٣ ٤٥ Ⅷ① ª° Привет, мир Ελλάδα\n"
    "中文字符 日本語 ひらがな カタカナ 한국어 हिन्दी ไทย العربية 😀👨\u200d👩\u200d👧🦙 "
    "\u00a0\u200b\ufeff\ue000𝒳 end  "
)


def write_vocab(path: Path, metadata: Mapping[str, Any], arch: str = "llama") -> None:
    """A GGUF file without tensors."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(1)
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif key.endswith("precompiled_charsmap"):
            writer.add_array(key, bytes(value))
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.fixture
def llama_encode(tmp_path: Path) -> Callable[[Mapping[str, Any]], Encode]:
    """metadata → (text, add_special=False) → ids, by llama.cpp."""
    llama_cpp = pytest.importorskip("llama_cpp")

    def load(metadata: Mapping[str, Any]) -> Encode:
        path = tmp_path / "vocab.gguf"
        write_vocab(path, metadata)
        llama = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)

        def encode(text: str, add_special: bool = False) -> list[int]:
            return list(llama.tokenize(text.encode(), add_bos=add_special, special=True))

        return encode

    return load


@pytest.fixture
def texts() -> list[str]:
    """A text, and its shuffled words: every boundary between two kinds of characters, often."""
    rng = random.Random(0)
    parts = PLAIN.split(" ")
    return [PLAIN, *("".join(rng.sample(parts, 6)) + " " * rng.randint(0, 3) for _ in range(60))]


@pytest.fixture(scope="session")
def docstrings() -> list[str]:
    """Prose and code of the standard library, to train tokenizers on."""
    files = [Path(module.__file__ or "") for module in (ast, json, random, textwrap)]
    return [file.read_text(encoding="utf-8") for file in files]


@pytest.fixture
def train(tmp_path: Path, docstrings: list[str]) -> Callable[..., Path]:
    """tokenizer.json with this pre-tokenizer (and these changes) → the directory it was saved in."""
    from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

    def make(pre_tokenizer: Any, *, ignore_merges: bool = False, **changes: Any) -> Path:
        empty = {"version": "1.0", "pre_tokenizer": pre_tokenizer, "decoder": {"type": "ByteLevel"}}
        empty["decoder"] |= {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        model = {"type": "BPE", "vocab": {}, "merges": [], "ignore_merges": ignore_merges}
        tokenizer = Tokenizer.from_str(json.dumps({**empty, "model": model, **changes}))
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            show_progress=False,
            special_tokens=["<|endoftext|>", "<s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator([*docstrings, PLAIN * 2], trainer)
        tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
        return tmp_path

    return make


@pytest.fixture
def edit(train: Callable[..., Path]) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """GPT-2's tokenizer.json, changed in place by a function."""

    def make(change: Callable[[dict[str, Any]], Any]) -> Path:
        directory = train(
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        )
        path = directory / "tokenizer.json"
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
        change(tokenizer)
        path.write_text(json.dumps(tokenizer), encoding="utf-8")
        return directory

    return make
