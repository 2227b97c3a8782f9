"""Overrides of single tensors' types."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.mixes import ModelShape, choose_types
from edgeq.formats.gguf.overrides import apply_overrides, parse_override
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan

TENSORS = [
    ("token_embd.weight", (64, 512)),
    ("blk.0.attn_norm.weight", (512,)),
    ("blk.0.attn_q.weight", (512, 512)),
    ("blk.0.ffn_down.weight", (512, 96)),
    ("blk.0.ffn_gate_inp.weight", (4, 512)),
    ("blk.1.attn_q.weight", (512, 512)),
    ("blk.1.attn_q.bias", (512,)),
    ("blk.11.attn_q.weight", (512, 512)),
]
CHOICES = choose_types("Q4_K_M", ModelShape("llama", 12, 8, 8), TENSORS)


def types(*overrides: str) -> dict[str, str]:
    changed = apply_overrides(CHOICES, TENSORS, [parse_override(text) for text in overrides])
    before = {c.name: c.type_name for c in CHOICES}
    return {c.name: c.type_name for c in changed if c.type_name != before[c.name]}


def test_types_by_pattern():
    assert types() == {}
    assert types("attn_q=q6_k") == {f"blk.{i}.attn_q.weight": "Q6_K" for i in (0, 1, 11)}
    assert types(r"^blk\.1\.=IQ4_XS") == {"blk.1.attn_q.weight": "IQ4_XS"}
    assert types("token_embd=F16", r"blk\.(0|1)\.attn_q = BF16 ") == {
        "token_embd.weight": "F16",
        "blk.0.attn_q.weight": "BF16",
        "blk.1.attn_q.weight": "BF16",
    }
    assert types("ffn_down=Q5_1") == {"blk.0.ffn_down.weight": "Q5_1"}  # a fallback gives way


def test_the_first_pattern_decides():
    assert types(r"blk\.1\.attn_q=Q8_0", "attn_q=Q3_K") == {
        "blk.0.attn_q.weight": "Q3_K",
        "blk.1.attn_q.weight": "Q8_0",
        "blk.11.attn_q.weight": "Q3_K",
    }
    with pytest.raises(EdgeqError, match=r"override blk\\.1\\.=Q3_K: an override before it takes all"):
        types("attn_q=Q8_0", r"blk\.1\.=Q3_K")


def test_choices_say_why():
    changed = apply_overrides(CHOICES, TENSORS, [parse_override("ffn_down=q8_0")])
    choice = next(c for c in changed if c.name == "blk.0.ffn_down.weight")
    assert (choice.type_name, choice.wanted_type) == ("Q8_0", "Q8_0")
    assert choice.reason == "override ffn_down=Q8_0"
    assert not choice.is_fallback
    assert [c.name for c in changed] == [name for name, _ in TENSORS]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ffn_down", "must be PATTERN=TYPE"),
        ("=Q4_K", "must be PATTERN=TYPE"),
        ("ffn_down=", "must be PATTERN=TYPE"),
        ("", "must be PATTERN=TYPE"),
        ("ffn_(down=Q4_K", r"'ffn_\(down=Q4_K': the pattern is not a regular expression"),
        ("ffn_down=Q4_K_M", "'ffn_down=Q4_K_M': Q4_K_M: no such block type; there are BF16, .*Q6_K"),
        ("ffn_down=IQ2_XXS", "'ffn_down=IQ2_XXS': IQ2_XXS: edgeq decodes this type but cannot encode"),
    ],
)
def test_overrides_that_are_none(text: str, problem: str):
    with pytest.raises(EdgeqError, match=problem):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("attn_k=Q4_K", "override attn_k=Q4_K: no tensor's name matches"),
        (
            "ffn_down=Q6_K",
            "'blk.0.ffn_down.weight' has rows of 96 values, which are not whole Q6_K blocks of 256",
        ),
        ("attn_norm=Q8_0", "never quantized, such as 'blk.0.attn_norm.weight'"),
        ("ffn_gate_inp=Q8_0", "never quantized, such as 'blk.0.ffn_gate_inp.weight'"),
        ("bias=F16", "never quantized, such as 'blk.1.attn_q.bias'"),
    ],
)
def test_overrides_that_cannot_apply(text: str, problem: str):
    with pytest.raises(EdgeqError, match=problem):
        types(text)


def test_a_pattern_may_hold_an_equals_sign():
    assert str(parse_override("a=b=q4_0")) == "a=b=Q4_0"


def test_the_writer_takes_what_overrides_give(tmp_path: Path):
    changed = apply_overrides(CHOICES, TENSORS, [parse_override("attn_q=TQ1_0")])
    plans = [TensorPlan(c.name, c.type_name, shape) for c, (_, shape) in zip(changed, TENSORS, strict=True)]
    assert (
        GGUFWriter(tmp_path / "x.gguf", "llama", {}, plans).planned_bytes("blk.0.attn_q.weight")
        == 512 * 2 * 54
    )
