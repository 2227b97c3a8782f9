"""``--target`` of export and quantize: the options that both have, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli._options import no_nan
from edgeq.cli._output import progress_bar, warn
from edgeq.cli.devices import warn_if_busy

if TYPE_CHECKING:
    from edgeq.devices.profile import Profile
    from edgeq.targeting.settings import Settings
    from edgeq.targeting.trial import Speed

TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="The device that will run it: format, options and runtime settings are chosen for it. See "
        "`edgeq devices list`; the name `this` is the machine at hand: it is measured once, and the formats that are "
        "predicted within 20 % of the fastest, up to six, are tried for a minute.",
    ),
]
ContextOption = Annotated[
    int, typer.Option(min=0, help="With --target: tokens of context; 0 is the model's own, at most 4096.")
]
LossOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        callback=no_nan,
        help="With --target: the most KL divergence to float (1 - cosine of encoders) to accept.",
    ),
]


def chosen(
    target: str,
    model: Path,
    quants: Mapping[str, Sequence[str]],
    *,
    to: str,
    quant: str,
    context: int,
    most_loss: float | None,
) -> Settings:
    """What ``--target`` chooses of the formats ``quants`` (by gguf and onnx), told on stderr. Raises EdgeqError."""
    from edgeq.cli.devices import device
    from edgeq.targeting.choose import Wish, choose

    wish = Wish(
        model=model,
        profile=_measured() if target == "this" else device(target, None),
        to=to,
        quant=quant,
        context=context,
        most_loss=most_loss,
        engine=_engine() if target == "this" else "llama.cpp",
        tried=_tried if target == "this" else None,
    )
    settings = choose(wish, quants)
    warn(f"--target {target}: {settings.to} {settings.quant}, {settings.reason}")
    warn(f"--target {target}: {settings.how_to_run()}")
    return settings


def _engine() -> str:
    """Whose rates count here: llama.cpp's where it is installed, else edgeq's own."""
    from edgeq.runtimes.engines import gguf_prover

    return {"llama.cpp": "llama.cpp", "embedded": "edgeq"}[gguf_prover()]


def _measured() -> Profile:
    """This machine's profile, measured: as it was saved, else now, and saved."""
    from edgeq.devices.host import THIS, host_facts, this_machine
    from edgeq.devices.library import user_folder
    from edgeq.devices.to_toml import profile_toml
    from edgeq.formats.atomic import write_text
    from edgeq.measure_device import measured_profile

    known = this_machine()
    if known.memory.read_gbs is not None and known.rates:
        return known
    path = user_folder() / f"{THIS}.toml"
    warn(f"measuring this machine, which takes a minute; kept in {path}")
    warn_if_busy()
    with progress_bar() as progress:
        found, _ = measured_profile(host_facts(), 0, progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, profile_toml(found), force=True)
    return this_machine()


def _tried(model: Path, quants: Sequence[str]) -> Mapping[str, Speed]:
    from edgeq.devices.cpu import usable_cores
    from edgeq.runtimes.engines import gguf_prover
    from edgeq.targeting.trial import measured_speeds

    warn(f"trying {', '.join(quants)} with weights of zeros, about a minute")
    return measured_speeds(model, quants, engine=gguf_prover(), threads=usable_cores())
