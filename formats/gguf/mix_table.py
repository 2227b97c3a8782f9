"""The table behind ``mixes``: which type llama.cpp gives which tensor in which kind of file.

Source: src/llama-quant.cpp (llama.cpp 0c1e57098): ``llama_ftype_get_default_type``, ``tensor_get_category``,
``tensor_allows_quantization``, ``llama_tensor_get_type_impl``, ``tensor_type_fallback``; and
``prepare_tensors`` in conversion/base.py for what stays F32. glm5-next's own exceptions are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class FileType:
    """A kind of GGUF file: its name, general.file_type (``enum llama_ftype``), the type of most tensors."""

    name: str
    number: int
    base: str


FILE_TYPES: dict[str, FileType] = {
    name: FileType(name, number, base)
    for name, number, base in (
        ("F32", 0, "F32"),
        ("F16", 1, "F16"),
        ("BF16", 32, "BF16"),
        ("Q8_0", 7, "Q8_0"),
        ("Q4_0", 2, "Q4_0"),
        ("Q4_1", 3, "Q4_1"),
        ("Q5_0", 8, "Q5_0"),
        ("Q5_1", 9, "Q5_1"),
        ("Q2_K", 10, "Q2_K"),
        ("Q2_K_S", 21, "Q2_K"),
        ("Q3_K_S", 11, "Q3_K"),
        ("Q3_K_M", 12, "Q3_K"),
        ("Q3_K_L", 13, "Q3_K"),
        ("Q4_K_S", 14, "Q4_K"),
        ("Q4_K_M", 15, "Q4_K"),
        ("Q5_K_S", 16, "Q5_K"),
        ("Q5_K_M", 17, "Q5_K"),
        ("Q6_K", 18, "Q6_K"),
        ("IQ4_NL", 25, "IQ4_NL"),
        ("IQ4_XS", 30, "IQ4_XS"),
        ("TQ1_0", 36, "TQ1_0"),
        ("TQ2_0", 37, "TQ2_0"),
        ("MXFP4_MOE", 38, "MXFP4"),
    )
}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}  # as llama-quantize has them
UNQUANTIZED = frozenset({"F32", "F16", "BF16"})

# The role of a tensor is that of the first row whose text its name equals or contains.
TOKEN_EMBD, OUTPUT, OTHER = "token_embd", "output", "other"
ATTN_V, ATTN_K, ATTN_Q, ATTN_OUTPUT = "attn_v", "attn_k", "attn_q", "attn_output"
FFN_UP, FFN_GATE, FFN_DOWN = "ffn_up", "ffn_gate", "ffn_down"
ROLES_BY_NAME = {
    "output.weight": OUTPUT,
    "token_embd.weight": TOKEN_EMBD,
    "per_layer_token_embd.weight": TOKEN_EMBD,
}
ROLES_BY_PART = {
    "attn_qkv.weight": ATTN_V,  # fused tensors hold the values too, and count with them
    "attn_kv_b.weight": ATTN_V,
    "attn_v.weight": ATTN_V,
    "attn_k.weight": ATTN_K,
    "attn_q.weight": ATTN_Q,
    "attn_output.weight": ATTN_OUTPUT,
    "ffn_up": FFN_UP,
    "ffn_gate": FFN_GATE,
    "ffn_down": FFN_DOWN,
}

# Tensors that llama.cpp does not quantize, besides 1-D ones and those whose name does not end in "weight".
KEPT_NAMES = frozenset({"position_embd.weight", "token_types.weight"})
KEPT_PARTS = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
)

# Tensors that convert_hf_to_gguf leaves in F32 in every file, besides 1-D ones and those that do not end in
# ".weight". The gate of the shared experts is one, though llama-quantize would quantize it where it is 2-D.
F32_NAMES = frozenset(
    {"position_embd.weight", "token_types.weight", "v.position_embd.weight", "a.position_embd.weight"}
)
F32_PARTS = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_inp_shexp.weight",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "time_mix_first.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "altup_correct_coef.weight",
    "altup_predict_coef.weight",
    "indexer.proj.weight",
    "posnet.norm1",
    "posnet.norm2",
)

# What takes the place of a type whose blocks do not divide the row. What is not here, or still does not
# divide, becomes F16.
FALLBACKS = {
    "IQ4_XS": "IQ4_NL",
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
LAST_RESORT = "F16"

# The models that llama.cpp calls 70B: their layer count. Source: load_arch_hparams in src/models/*.cpp.
LAYERS_OF_70B = {"llama": 80, "llama-embed": 80, "qwen2": 80, "deci": 80, "jais2": 68, "olmo": 80}


@dataclass(frozen=True)
class Facts:
    """What a rule may ask about a tensor. ``i`` of ``n`` counts it among its role, as llama.cpp counts."""

    file_type: str
    architecture: str
    role: str
    i: int
    n: int
    row_fits: bool  # the columns divide into whole blocks of the file's base type
    is_stack: bool  # several matrices, such as all experts of a layer
    n_experts: int
    heads_per_kv: int  # query heads that share a head of keys and values, rounded down; 0 without attention
    is_70b: bool
    has_imatrix: bool


@dataclass(frozen=True)
class Rule:
    """One row: in files ``files``, tensors of ``roles`` that would be ``of`` become ``type_name``.

    An empty tuple stands for all; ``when`` may want more.
    """

    roles: tuple[str, ...]
    files: tuple[str, ...]
    type_name: str
    reason: str
    when: Callable[[Facts], bool] = lambda facts: True
    of: tuple[str, ...] = ()


def _more_bits(f: Facts) -> bool:
    """``use_more_bits``: the first and the last eighth, and every third between them."""
    return f.i < f.n // 8 or f.i >= 7 * f.n // 8 or (f.i - f.n // 8) % 3 == 2


def _first_eighth(f: Facts) -> bool:
    return f.i < f.n // 8


def _first_sixteenth(f: Facts) -> bool:
    return f.i < f.n // 16


def _falcon(f: Facts) -> bool:
    return f.architecture == "falcon"


def _eight_experts(f: Facts) -> bool:
    return f.n_experts == 8


def _plain_model(f: Facts) -> bool:
    return not _falcon(f) and not _eight_experts(f)


def _four_heads_share(f: Facts) -> bool:
    return f.heads_per_kv >= 4


def _expert(f: Facts) -> bool:
    """The attention of bailingmoe3 has stacks of matrices too."""
    return f.is_stack and (f.architecture != "bailingmoe3" or f.role in (FFN_UP, FFN_GATE, FFN_DOWN))


_K_M = ("Q4_K_M", "Q5_K_M")
_IQ4 = ("IQ4_NL", "IQ4_XS")

# The first row that fits gives the type; where none does it is the base type of the file.
CHOICES: tuple[Rule, ...] = (
    Rule((OUTPUT,), (), "Q8_0", "output of falcon or of a row its blocks do not divide",
         lambda f: _falcon(f) or not f.row_fits),
    Rule((OUTPUT,), ("Q8_0", "MXFP4_MOE"), "Q8_0", "output"),
    Rule((OUTPUT,), (), "Q6_K", "output"),
    Rule((), ("MXFP4_MOE",), "MXFP4", "experts", _expert),
    Rule((), ("MXFP4_MOE",), "Q8_0", "not experts"),
    Rule((TOKEN_EMBD,), ("TQ1_0", "TQ2_0"), "Q4_K", "token_embd of a ternary model"),
    Rule((ATTN_V,), ("Q2_K", "Q2_K_S"), "Q4_K", "attn_v: four or more heads share it", _four_heads_share),
    Rule((ATTN_V,), ("Q2_K",), "Q3_K", "attn_v"),
    Rule((ATTN_V,), ("Q3_K_M",), "Q5_K", "attn_v: the first two", lambda f: f.i < 2),
    Rule((ATTN_V,), ("Q3_K_M",), "Q4_K", "attn_v"),
    Rule((ATTN_V,), ("Q3_K_L",), "Q5_K", "attn_v"),
    Rule((ATTN_V,), _IQ4, "Q5_K", "attn_v: four or more heads share it", _four_heads_share),
    Rule((ATTN_V,), _K_M, "Q6_K", "attn_v: more bits for first, last and every third layer", _more_bits),
    Rule((ATTN_V,), ("Q4_K_S",), "Q5_K", "attn_v: the first four", lambda f: f.i < 4),
    Rule((FFN_DOWN,), ("Q2_K",), "Q3_K", "ffn_down"),
    Rule((FFN_DOWN,), ("Q2_K_S",), "Q4_K", "ffn_down: the first eighth", _first_eighth),
    Rule((FFN_DOWN,), ("Q3_K_M",), "Q5_K", "ffn_down: the first sixteenth", _first_sixteenth),
    Rule((FFN_DOWN,), ("Q3_K_M",), "Q4_K", "ffn_down (of falcon: more bits for some layers)",
         lambda f: not _falcon(f) or _more_bits(f)),
    Rule((FFN_DOWN,), ("Q3_K_L",), "Q4_K", "ffn_down of falcon", _falcon),
    Rule((FFN_DOWN,), ("Q3_K_L",), "Q5_K", "ffn_down"),
    Rule((FFN_DOWN,), _IQ4, "Q5_K", "ffn_down: the first eighth, without an importance matrix",
         lambda f: not f.has_imatrix and _first_eighth(f)),
    Rule((FFN_DOWN,), ("Q4_K_M",), "Q6_K", "ffn_down of falcon: the first sixteenth",
         lambda f: _falcon(f) and _first_sixteenth(f)),
    Rule((FFN_DOWN,), ("Q4_K_M",), "Q5_K", "ffn_down of falcon: more bits for some layers",
         lambda f: _falcon(f) and _more_bits(f)),
    Rule((FFN_DOWN,), ("Q4_K_M",), "Q6_K", "ffn_down: more bits for first, last and every third layer",
         lambda f: not _falcon(f) and _more_bits(f)),
    Rule((FFN_DOWN,), ("Q5_K_M",), "Q6_K", "ffn_down: more bits for first, last and every third layer",
         _more_bits),
    Rule((FFN_DOWN,), ("Q4_K_S",), "Q5_K", "ffn_down: the first eighth",
         lambda f: not _falcon(f) and _first_eighth(f)),
    Rule((FFN_DOWN,), ("Q4_0",), "Q4_1", "ffn_down: the first eighth, with an importance matrix",
         lambda f: f.has_imatrix and _first_eighth(f)),
    Rule((FFN_DOWN,), ("Q5_0",), "Q5_1", "ffn_down: the first eighth, with an importance matrix",
         lambda f: f.has_imatrix and _first_eighth(f)),
    Rule((ATTN_OUTPUT,), ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", *_IQ4), "Q5_K",
         "attn_output of 8 experts", lambda f: _eight_experts(f) and not _falcon(f)),
    Rule((ATTN_OUTPUT,), ("Q2_K",), "Q3_K", "attn_output", _plain_model),
    Rule((ATTN_OUTPUT,), ("Q3_K_M",), "Q4_K", "attn_output", _plain_model),
    Rule((ATTN_OUTPUT,), ("Q3_K_L",), "Q5_K", "attn_output", _plain_model),
    Rule((ATTN_OUTPUT,), ("Q3_K_L",), "Q4_K", "attn_output of falcon", _falcon),
)  # fmt: skip

# Then the first of these that fits changes what was chosen.
PROMOTIONS: tuple[Rule, ...] = (
    Rule((ATTN_V, ATTN_K), (), "Q8_0", "attn_k and attn_v of 8 experts", _eight_experts),
    Rule((ATTN_V,), (), "Q5_K", "attn_v of a 70B model", lambda f: f.is_70b, of=("Q3_K", "Q4_K")),
)
