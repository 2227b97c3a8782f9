"""What a device asks of the format that was chosen for it: instruction-set options, and the runtime's settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeq.devices.profile import Profile
from edgeq.formats.onnx.int8 import FULL_RANGE
from edgeq.onnx.isa import PROFILES
from edgeq.onnx.sessions import PROVIDER

# An instruction set, best first, and the CPU of ``edgeq.onnx.isa`` that has it.
_CPUS = (
    ("amx-int8", "amx"),
    ("avx512vnni", "avx512-vnni"),
    ("avxvnni", "avx-vnni"),
    ("avx2", "avx2"),
    ("i8mm", "neon-i8mm"),
    ("dotprod", "neon-dotprod"),
)
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_CUDA_BLOCK, _BLOCK = 32, 32


@dataclass(frozen=True)
class OnnxSettings:
    """How an ONNX file is made: ``isa`` and what follows from it, blocks, operators, and the provider that runs it.

    ``reduced_range`` limits neighbouring weights, for CPUs that add u8 × s8 products in a saturating int16.
    ``accuracy_level`` 4 lets the CPU round activations to int8 in MatMulNBits, 0 leaves the choice to the provider.
    """

    isa: str
    activations: str
    weights: str
    reduced_range: bool
    block_size: int
    accuracy_level: int
    dialect: str
    provider: str
    api: str


@dataclass(frozen=True)
class Settings:
    """A format for a device, and how to run it. ``n_gpu_layers`` is None where no GPU of its own memory is used."""

    device: str
    app: str
    to: str
    quant: str
    reason: str
    context: int
    kv_type: str
    threads: int
    n_gpu_layers: int | None = None
    onnx: OnnxSettings | None = None
    predicted: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)  # tokens/s by format, where they were tried

    def record(self) -> dict[str, Any]:
        """For edgeq.json."""
        command = {"llama.cpp": self.llama_cpp_options()} if self.to == "gguf" else {}
        return asdict(self) | command

    def llama_cpp_options(self) -> list[str]:
        """Options of llama-cli and llama-server."""
        options = ["-c", str(self.context), "-t", str(self.threads)]
        if self.n_gpu_layers is not None:
            options += ["-ngl", str(self.n_gpu_layers)]
        if self.kv_type != "f16":
            options += ["-fa", "on", "-ctk", self.kv_type, "-ctv", self.kv_type]
        return options

    def how_to_run(self) -> str:
        """What its runtime is told there, in a line for the user."""
        if self.onnx is None:
            return f"llama.cpp runs it with {' '.join(self.llama_cpp_options())}"
        threads = f", {self.threads} threads" if self.threads and self.onnx.provider == CPU else ""
        return f"ONNX Runtime runs it in {self.onnx.provider}{threads}, {self.context} tokens of context"

    def session_entries(self) -> dict[str, str]:
        """What ONNX Runtime's session is told (``session_config.json``)."""
        if self.onnx is None:
            return {}
        provider = {} if self.onnx.provider == CPU else {PROVIDER: self.onnx.provider}
        return dict(PROFILES[self.onnx.isa].session) | provider


def onnx_settings(profile: Profile, api: str, kind: str) -> OnnxSettings:
    """For the CPU's instruction sets, or for the CUDA provider where that runs it."""
    isa = "generic" if api == "cuda" else isa_of(profile.isa)
    types = PROFILES[isa].types
    return OnnxSettings(
        isa=isa,
        activations=types.activation.__name__,
        weights=types.weight.__name__,
        reduced_range=PROFILES[isa].limit != FULL_RANGE,
        block_size=_CUDA_BLOCK if api == "cuda" else _BLOCK,
        accuracy_level=0 if api == "cuda" else 4,
        dialect="cuda" if kind == "decoder" and api == "cuda" else "standard",
        provider=CUDA if api == "cuda" else CPU,
        api=api,
    )


def isa_of(names: Collection[str]) -> str:
    """The CPU of ``edgeq.onnx.isa`` for a profile's instruction sets."""
    return next((cpu for name, cpu in _CPUS if name in names), "generic")
