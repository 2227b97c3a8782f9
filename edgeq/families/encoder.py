"""An encoder described by data: which tensors a layer has says what it computes.

A family names the parts of its layers (``layer``: GGUF role → Hugging Face name). A part that is not named is not
there: norms before or after, fused or separate projections, a gated or plain feed-forward. The numbers are in
``HyperParameters``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from edgeq.families.base import HyperParameters, TensorSpec
from edgeq.families.encoder_keys import EncoderKeys
from edgeq.families.ops import Activation, Ops, V
from edgeq.families.sentence import dense_tensors

_OLD_NORM = {".weight": ".gamma", ".bias": ".beta"}  # what TensorFlow's checkpoints of BERT call them


@dataclass(frozen=True)
class Classifier:
    """What stands between the hidden states and the labels, by Hugging Face names; "" is not there."""

    output: str
    dense: str = ""
    activation: Activation = "tanh"
    norm: str = ""
    dense_bias: bool = True


class Encoder(EncoderKeys):
    """An encoder of text, with what most of them have in common: absolute positions, biases, norms after the sums."""

    layer: ClassVar[Mapping[str, str]]
    outer: ClassVar[Mapping[str, str]]
    block: ClassVar[str] = "encoder.layer.{}."  # what stands before a layer's names
    classifiers: ClassVar[Mapping[str, Classifier]]  # of sequences and of tokens
    linear_bias: ClassVar[bool] = True  # the layers' matrices have biases
    norm_bias: ClassVar[bool] = True
    fused_gate: ClassVar[bool] = False  # ``ffn_up`` holds the gate's rows, then the others
    reads_segments: ClassVar[bool] = True  # False: every token is of the first segment

    def parts(self, i: int) -> Mapping[str, str]:
        """The roles of a layer's tensors and their Hugging Face names, in file order."""
        return self.layer

    def gguf_notes(self, hp: HyperParameters) -> list[str]:
        if hp.head != "sequence" or not self.reads_segments or hp.n_token_types < 2:
            return []
        return [
            f"llama.cpp's {self.architecture} graph takes every token as of the first segment: it classifies pairs of "
            "texts otherwise"
        ]

    # --- tensors ------------------------------------------------------------------------------------------------
    def tensors(self, hp: HyperParameters) -> Iterator[TensorSpec]:
        rows = {"token_embd": hp.vocab, "position_embd": hp.context, "token_types": hp.n_token_types}
        for role, source in self.outer.items():
            if rows.get(role):
                skipped = hp.position_offset if role == "position_embd" else 0
                shape = (rows[role], hp.hidden)
                yield TensorSpec(f"{role}.weight", f"{source}.weight", shape, skipped=skipped)
        yield from self._norm("token_embd_norm", self.outer["token_embd_norm"], hp.hidden)
        for i in range(hp.n_layers):
            for role, source in self.parts(i).items():
                name, source = f"blk.{i}.{role}", self.block.format(i) + source
                if role.endswith("_norm"):
                    yield from self._norm(name, source, hp.hidden)
                else:
                    yield from _linear(name, source, self._shape(hp, role), self.linear_bias)
        if "output_norm" in self.outer:
            yield from self._norm("output_norm", self.outer["output_norm"], hp.hidden)
        if hp.head != "none":
            yield from self._classifier_tensors(hp, self.classifiers[hp.head])
        yield from dense_tensors(hp)

    def _classifier_tensors(self, hp: HyperParameters, head: Classifier) -> Iterator[TensorSpec]:
        if head.dense:
            yield from _linear("cls", head.dense, (hp.hidden, hp.hidden), head.dense_bias)
        if head.norm:
            yield from self._norm("cls.norm", head.norm, hp.hidden)
        yield from _linear("cls.output", head.output, (len(hp.labels), hp.hidden), True)

    def _norm(self, name: str, source: str, width: int) -> Iterator[TensorSpec]:
        for part, old in _OLD_NORM.items():
            if part == ".weight" or self.norm_bias:
                yield TensorSpec(name + part, source + part, (width,), old_source=source + old)

    def _shape(self, hp: HyperParameters, role: str) -> tuple[int, int]:
        shapes = {
            "attn_qkv": (3 * hp.hidden, hp.hidden),
            "ffn_up": (2 * hp.ffn if self.fused_gate else hp.ffn, hp.hidden),
            "ffn_gate": (hp.ffn, hp.hidden),
            "ffn_down": (hp.hidden, hp.ffn),
        }
        return shapes.get(role, (hp.hidden, hp.hidden))

    # --- forward ------------------------------------------------------------------------------------------------
    def forward(self, ops: Ops[V], hp: HyperParameters) -> V:
        x = self.hidden(ops, hp)
        return x if hp.head == "none" else self._classified(ops, hp, x)

    def hidden(self, ops: Ops[V], hp: HyperParameters) -> V:
        x = ops.embed("token_embd", ops.tokens())
        if self.positions == "table":
            x = ops.add(x, ops.embed("position_embd", ops.positions()))
        if hp.n_token_types:
            reads = self.reads_segments
            x = ops.add(
                x, ops.embed("token_types", ops.token_types()) if reads else ops.first_row("token_types")
            )
        x = ops.norm(x, "token_embd_norm", "layer", hp.norm_eps)
        for i in range(hp.n_layers):
            h = self._attention(ops, hp, i, self._normed(ops, hp, x, i, "attn_norm"))
            x = self._normed(ops, hp, ops.add(x, h), i, "attn_output_norm")
            h = self._feed_forward(ops, hp, i, self._normed(ops, hp, x, i, "ffn_norm"))
            x = self._normed(ops, hp, ops.add(x, h), i, "layer_output_norm")
        if "output_norm" in self.outer:
            x = ops.norm(x, "output_norm", "layer", hp.norm_eps)
        return x

    def _normed(self, ops: Ops[V], hp: HyperParameters, x: V, i: int, role: str) -> V:
        """The norm of that role, where the layer has it."""
        return ops.norm(x, f"blk.{i}.{role}", "layer", hp.norm_eps) if role in self.parts(i) else x

    def _attention(self, ops: Ops[V], hp: HyperParameters, i: int, x: V) -> V:
        blk, rope = f"blk.{i}.", hp.rope_of(i)
        if "attn_qkv" in self.layer:
            projected = ops.split(ops.linear(x, blk + "attn_qkv"), [hp.hidden] * 3)
        else:
            projected = [ops.linear(x, blk + name) for name in ("attn_q", "attn_k", "attn_v")]
        q, k, v = (ops.heads(y, hp.n_heads) for y in projected)
        if rope is not None:
            q, k = ops.rope(q, rope), ops.rope(k, rope)
        a = ops.attention(q, k, v, layer=i, scale=hp.head_dim**-0.5, causal=False, window=hp.window_of(i))
        return ops.linear(a, blk + "attn_output")

    def _feed_forward(self, ops: Ops[V], hp: HyperParameters, i: int, x: V) -> V:
        blk = f"blk.{i}."
        up = ops.linear(x, blk + "ffn_up")
        if self.fused_gate:
            gate, up = ops.split(up, [hp.ffn, hp.ffn])
            h = ops.mul(ops.activation(gate, self.activation), up)
        elif "ffn_gate" in self.layer:
            h = ops.mul(ops.activation(ops.linear(x, blk + "ffn_gate"), self.activation), up)
        else:
            h = ops.activation(up, self.activation)
        return ops.linear(h, blk + "ffn_down")

    def _classified(self, ops: Ops[V], hp: HyperParameters, x: V) -> V:
        head = self.classifiers[hp.head]
        if hp.head == "sequence":
            x = ops.pool(x, hp.head_pooling)
        if head.dense:
            x = ops.activation(ops.linear(x, "cls"), head.activation)
        if head.norm:
            x = ops.norm(x, "cls.norm", "layer", hp.norm_eps)
        return ops.linear(x, "cls.output")


def _linear(name: str, source: str, shape: tuple[int, int], bias: bool) -> Iterator[TensorSpec]:
    yield TensorSpec(name + ".weight", source + ".weight", shape)
    if bias:
        yield TensorSpec(name + ".bias", source + ".bias", shape[:1])
