"""Types of single tensors as the user wants them: ``PATTERN=TYPE`` on top of what a mix chose.

As llama-quantize's ``--tensor-type``, a pattern is a regular expression looked for anywhere in the tensor's
name, and the first one that is found decides. Unlike there, no override is ignored in silence: one that
matches nothing, that never decides, or that cannot apply is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeq.formats.blocks import by_name
from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.mixes import Choice, Shape, is_quantizable


@dataclass(frozen=True)
class Override:
    """Tensors whose name ``pattern`` finds get the type ``type_name``, one that edgeq encodes."""

    pattern: re.Pattern[str]
    type_name: str

    def __str__(self) -> str:
        return f"{self.pattern.pattern}={self.type_name}"


def parse_override(text: str) -> Override:
    """Parse ``PATTERN=TYPE``, the type in any case; raises EdgeqError for what no tensor could get.

    The last ``=`` divides, so that a pattern may hold one. Names are matched as they are: ``blk.3.`` finds
    ``blk.3.attn_q.weight``, and ``blk\\.(3|4)\\.ffn`` the feed-forward tensors of two layers.
    """
    pattern, separator, type_name = text.rpartition("=")
    pattern, type_name = pattern.strip(), type_name.strip()
    if not (separator and pattern and type_name):
        raise EdgeqError(f"{text!r}: an override must be PATTERN=TYPE, such as ffn_down=Q6_K")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise EdgeqError(f"{text!r}: the pattern is not a regular expression ({error})") from None
    try:
        block_type = by_name(type_name)
        block_type.check_encodes()
    except EdgeqError as error:
        raise EdgeqError(f"{text!r}: {error}") from None
    return Override(compiled, block_type.name)


def apply_overrides(
    choices: Sequence[Choice], tensors: Sequence[tuple[str, Shape]], overrides: Sequence[Override]
) -> list[Choice]:
    """Change the types that a mix chose for ``tensors`` (GGUF name, shape in NumPy's order; same order).

    Raises EdgeqError for an override that matches no tensor, that another one before it shadows everywhere,
    or that matches only tensors that are never quantized; and for a tensor whose columns are not whole
    blocks of the type wanted. Small tensors (norms, biases) that a pattern finds beside others are left.
    """
    used: set[int] = set()
    changed = []
    for choice, (name, shape) in zip(choices, tensors, strict=True):
        found = next((i for i, o in enumerate(overrides) if o.pattern.search(name)), None)
        if found is None or not is_quantizable(name, shape):
            changed.append(choice)
            continue
        used.add(found)
        changed.append(_overridden(choice, shape, overrides[found]))
    for i, override in enumerate(overrides):
        if i not in used:
            raise _unused(override, [t for t in tensors if override.pattern.search(t[0])])
    return changed


def _overridden(choice: Choice, shape: Shape, override: Override) -> Choice:
    block_type = by_name(override.type_name)
    if shape[-1] % block_type.block_values:
        raise EdgeqError(
            f"override {override}: tensor {choice.name!r} has rows of {shape[-1]} values, "
            f"which are not whole {block_type.name} blocks of {block_type.block_values}"
        )
    return replace(
        choice, type_name=block_type.name, wanted_type=block_type.name, reason=f"override {override}"
    )


def _unused(override: Override, matched: Sequence[tuple[str, Shape]]) -> EdgeqError:
    if not matched:
        return EdgeqError(f"override {override}: no tensor's name matches")
    name = matched[0][0]
    if any(is_quantizable(*tensor) for tensor in matched):
        return EdgeqError(
            f"override {override}: an override before it takes all its tensors, such as {name!r}"
        )
    return EdgeqError(f"override {override}: matches only tensors that are never quantized, such as {name!r}")
