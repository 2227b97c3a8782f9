"""The options of export by which types are chosen tensor by tensor, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgeq.allocation.goal import Wanted
    from edgeq.devices.machine import Machine

SizeOption = Annotated[
    str | None,
    typer.Option(
        help="In place of --quant: the best types, tensor by tensor, for a file of this size, 3.2GB."
    ),
]
BpwOption = Annotated[
    float | None,
    typer.Option(
        help="In place of --quant: the same for so many bits per weight (header not counted), such as 4.25."
    ),
]
KlOption = Annotated[
    float | None,
    typer.Option(
        help="In place of --quant: the smallest file whose mean KL divergence to float, measured on text that "
        "was not calibrated on, is at most this; exit code 3 if there is none."
    ),
]
CosineOption = Annotated[
    float | None,
    typer.Option(
        help="In place of --quant: the same of an encoder by the mean cosine of its vectors to float's, at least this."
    ),
]
TpsOption = Annotated[
    float | None,
    typer.Option(
        help="GGUF, in place of --quant or with the ones above: generates so many tokens/s, as predicted of --target, "
        "or of this machine."
    ),
]
TypesOption = Annotated[
    str | None,
    typer.Option(
        help="With the ones above: the types that tensors may get, such as Q3_K,Q4_K,Q6_K; for onnx int4,int8,float16."
    ),
]


def wanted(
    max_size: str | None,
    target_bpw: float | None,
    max_kl: float | None,
    min_cosine: float | None,
    min_tps: float | None,
    types: str | None,
    target: str | None,
    to: str | None,
) -> Wanted:
    """The options as one; raises UsageError for what contradicts itself."""
    from edgeq.allocation.goal import Wanted
    from edgeq.errors import UsageError

    if to == "onnx" and min_tps is not None:
        raise UsageError("--min-tps goes with --to gguf: ONNX Runtime's rates are not in the profiles")
    limits = (max_size, target_bpw, max_kl, min_cosine, min_tps)
    asked = any(limit is not None for limit in limits) and to != "onnx"
    found = Wanted(*limits, types, _machine(target) if asked and (target or min_tps is not None) else None)
    found.check(to or "gguf")
    return found


def check_alone(
    quant: str | None,
    context: int,
    most_loss: float | None,
    tensor_types: Sequence[str] | None,
    imatrix: Path | None,
) -> None:
    """Raise UsageError for options that choose types, too."""
    from edgeq.errors import UsageError

    others = {
        "--quant": quant,
        "--context": context,
        "--most-loss": most_loss,
        "--tensor-type": tensor_types,
        "--imatrix": imatrix,
    }
    for option, value in others.items():
        if value:
            raise UsageError(
                f"{option} does not go with --max-size, --target-bpw, --max-kl, --min-cosine or --min-tps"
            )


def _machine(target: str | None) -> Machine:
    from edgeq.cli.devices import device
    from edgeq.devices.host import this_machine
    from edgeq.devices.machine import cpu_of, gpu_of

    profile = this_machine() if target in (None, "this") else device(str(target), None)
    return cpu_of(profile) if profile.clusters else gpu_of(profile, profile.gpus[0])
