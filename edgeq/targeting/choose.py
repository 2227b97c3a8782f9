"""Choosing a format for a device by the plan, within its memory, with a smaller cache or context where it must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq import plan
from edgeq.devices.profile import Profile
from edgeq.planning.nothing_fits import nothing_fits
from edgeq.targeting.settings import Settings, onnx_settings

if TYPE_CHECKING:
    from edgeq.targeting.trial import Speed

_LEAST_CONTEXT = 512


@dataclass(frozen=True)
class Wish:
    """What the user asked for: ``to`` and ``quant`` where one is fixed; 0 and None as in ``plan.Request``.

    ``tried`` is what measures formats on this machine (``trial.measured_speeds``), None for another device.
    """

    model: Path
    profile: Profile
    to: str = ""
    quant: str = ""
    app: str | None = None
    context: int = 0
    most_loss: float | None = None
    engine: str = "llama.cpp"
    tried: Callable[[Path, Sequence[str]], Mapping[str, Speed]] | None = None


def choose(wish: Wish, quants: Mapping[str, Sequence[str]]) -> Settings:
    """The best format of ``quants`` (by target) that fits; raises GateError, saying why, where none does.

    First with the cache in float16, then in 8 bits, then with half the context, down to 512 tokens.
    """
    kv_type, context = "f16", wish.context
    record = _planned(wish, quants, context, kv_type)
    while record["choice"] is None and _is_memory(record):
        if kv_type == "f16" and any(row["format"] == "gguf" for row in record["formats"]):
            kv_type = "q8_0"
        elif record["context"] > _LEAST_CONTEXT and not wish.context:
            context = max(_LEAST_CONTEXT, record["context"] // 2)
        else:
            break
        record = _planned(wish, quants, context, kv_type)
    if record["choice"] is None:
        raise nothing_fits(record)
    return _settings(wish, record, kv_type)


def _planned(wish: Wish, quants: Mapping[str, Sequence[str]], context: int, kv_type: str) -> dict[str, Any]:
    wanted = {target: names for target, names in quants.items() if wish.to in ("", target)}
    most_loss = wish.most_loss
    if wish.quant:
        wanted = {target: [name for name in names if name == wish.quant] for target, names in wanted.items()}
        most_loss = float("inf")  # the user chose it
    return plan.run(
        plan.Request(
            model=wish.model,
            profile=wish.profile,
            context=context,
            app=wish.app,
            most_loss=most_loss,
            kv_type=kv_type,
            engine=wish.engine,
            quants=wanted,
        )
    )


def _is_memory(record: Mapping[str, Any]) -> bool:
    """Whether some format would do if it took less memory."""
    return any(row["memory"]["total"] > record["limit"]["bytes"] for row in record["formats"])


def _settings(wish: Wish, record: Mapping[str, Any], kv_type: str) -> Settings:
    best = record["formats"][0]
    measured: dict[str, float] = {}
    if wish.tried is not None and not wish.quant and best["format"] == "gguf" and _speed(best):
        best, measured = _tried(wish, record)
    profile = wish.profile
    gpu = profile.gpus[0] if profile.gpus and best["unit"] != "CPU" else None
    reason = best["reason"]
    if measured:
        reason = f"measured here: {measured[best['quant']]:.1f} tokens/s; {reason}"
    return Settings(
        device=record["device"]["id"],
        app=record["device"]["app"],
        to=best["format"],
        quant=best["quant"],
        reason=reason,
        context=record["context"],
        kv_type=kv_type if best["format"] == "gguf" else "f32" if best["quant"] != "float16" else "f16",
        threads=profile.threads,
        n_gpu_layers=best["n_gpu_layers"],
        onnx=onnx_settings(profile, "" if gpu is None else gpu.api, record["model"]["kind"])
        if best["format"] == "onnx"
        else None,
        predicted={"memory": best["memory"], "speed": best["speed"], "quality": best["quality"]},
        measured=measured,
    )


def _tried(wish: Wish, record: Mapping[str, Any]) -> tuple[Any, dict[str, float]]:
    """The format that is best by measured speeds among those that the prediction leaves in the running."""
    from edgeq.targeting.trial import BEHIND, MOST, as_fast

    assert wish.tried is not None
    fitting = [row for row in record["formats"] if row["place"] is not None and row["format"] == "gguf"]
    fastest = max(_speed(row) for row in fitting)
    near = sorted((row for row in fitting if _speed(row) >= BEHIND * fastest), key=_speed, reverse=True)[
        :MOST
    ]
    if len(near) < 2:
        return record["formats"][0], {}
    found = wish.tried(wish.model, [row["quant"] for row in near])
    if not found:
        return record["formats"][0], {}
    speeds = {quant: speed.tokens_per_second for quant, speed in found.items()}
    fast = as_fast(found)
    same = [row for row in near if row["quant"] in fast]
    return min(same, key=lambda row: (_loss(row), -speeds[row["quant"]])), speeds


def _speed(row: Mapping[str, Any]) -> float:
    speeds = row["speed"]
    return float(speeds["decode"]["tokens_per_second"]) if "decode" in speeds else 0.0


def _loss(row: Mapping[str, Any]) -> float:
    quality = row["quality"]
    return float("inf") if quality is None else float(quality["value"])
