"""The few figures of an export that people read first: shared by the terminal, and report.html."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.report.losses import SHOWN

_SHOWN_OUTPUTS = 6


def facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, value) pairs of one export, in the order in which they are read."""
    rows = [
        ("file", record["file"]),
        ("model", f"{record['model']['name']} ({record['model']['parameters']:,} parameters)"),
        (
            "size",
            f"{megabytes(record['bytes'])} ({record['bytes'] / record['float32_bytes']:.1%} of float32)",
        ),
        ("converted in", f"{record['seconds']:.1f} s, peak memory {megabytes(record['peak_memory_bytes'])}"),
    ]
    if record.get("calibration"):
        rows.append(("calibrated on", _calibration(record["calibration"])))
    if "allocation" in record:
        rows.append(("types", _types(record["allocation"])))
    proof = record.get("proof")
    if proof is None:
        return [*rows, ("proof", "skipped (--no-proof)")]
    rows.append(("proven in", f"{proof['runtime']}, loaded in {proof['load_seconds']:.2f} s"))
    rows.append(("compared on", f"{proof['text']} ({_amount(proof)})"))
    if "outputs" in proof:
        rows += [
            (f"output {output['name']}", _closeness(output)) for output in proof["outputs"][:_SHOWN_OUTPUTS]
        ]
    elif "cosine_mean" in proof:
        rows.append(("cosine to float", f"{proof['cosine_mean']:.4f} mean, {proof['cosine_min']:.4f} least"))
        rows.append(("speed", f"{proof['sentences_per_second']:,.0f} sentences/s, one at a time"))
    elif "logit_difference" in proof:
        rows.append(("logits to float", f"differ by {proof['logit_difference']:.2%} of their range at most"))
        if "same_label" in proof:
            rows.append(("same best label", f"{proof['same_label']:.1%}"))
        rows.append(("speed", f"{proof['sentences_per_second']:,.0f} sentences/s, one at a time"))
    else:
        error = f" ± {proof['kl_standard_error']:.5f}, {proof['kl_99']:.4f} at 99 %"
        rows.append(("KL to float", f"{proof['kl_mean']:.5f}{error}"))
        rows.append(("same top token", f"{proof['top1_agreement']:.1%}"))
        rows.append(("perplexity", f"{proof['perplexity']:.3f} (float {proof['perplexity_float']:.3f})"))
        speeds = proof["prefill_tokens_per_second"], proof["decode_tokens_per_second"]
        rows.append(("speed", f"{speeds[0]:,.0f} tokens/s reading, {speeds[1]:,.0f} tokens/s generating"))
    if "speed_against_float" in proof:
        doing = ", generating" if record["quant"] in ("int4", "int8-blocks") and "kl_mean" in proof else ""
        speed = f"{proof['speed_against_float']:.2f} times the float graph's speed{doing}"
        rows.append(("against float", speed))
    return rows


def _types(allocation: Mapping[str, Any]) -> str:
    """Which types were chosen, and what was measured of them on held-out text."""
    chosen, tokens = allocation["chosen"], allocation["tokens"]["measured"]
    counts = ", ".join(f"{count} × {kind}" for kind, count in chosen["counts"].items())
    measure, measured = SHOWN[allocation["measure"]], chosen["measured"]
    found = f"{measured[measure.mean]:.5f} ± {measured[measure.error]:.5f}"
    return f"{counts}; {measure.mean.partition('_')[0].replace('kl', 'KL')} {found} on {tokens:,} tokens held out"


def megabytes(count: int) -> str:
    """Bytes as megabytes (10⁶) with one decimal."""
    return f"{count / 1e6:,.1f} MB"


def _calibration(found: Mapping[str, Any]) -> str:
    """The data, the method, and whether the calibration ran."""
    passes = found["passes"]
    samples, seconds = max(one["samples"] for one in passes), sum(one["seconds"] for one in passes)
    kept = all(one["cached"] for one in passes)
    how = "seen before, from the cache" if kept else f"in {seconds:.1f} s"
    return f"{found['data']} ({samples:,} samples), {found['method']}, {how}"


def _amount(proof: Mapping[str, Any]) -> str:
    if "samples" in proof:
        return f"{proof['samples']} samples{', held out' if proof['held_out'] else ''}"
    return f"{proof['sentences']} sentences" if "sentences" in proof else f"{proof['tokens']:,} tokens"


def _closeness(output: Mapping[str, Any]) -> str:
    """How close one output of a graph is to the float graph's."""
    parts = []
    if "cosine_mean" in output:
        parts.append(f"cosine {output['cosine_mean']:.4f} mean, {output['cosine_min']:.4f} least")
    if "relative_error" in output:
        parts.append(f"error {output['relative_error']:.2%}, at most {output['max_error']:.3g}")
    for key, what in (("top1_agreement", "same largest"), ("agreement", "equal")):
        if key in output:
            parts.append(f"{what} {output[key]:.1%}")
    if "other_shapes" in output:
        parts.append(f"another shape in {output['other_shapes']} of {output['samples']} samples")
    return "; ".join(parts) or "nothing to compare"
