"""The rows of an evaluation that people read: shared by the terminal and report.html."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.report.facts import megabytes
from edgeq.report.losses import shown_of

Row = tuple[str, ...]
_MOST_LAYERS = 60

# Key of the answers, what it is called, its format, the key of its error.
_ANSWERS = (
    ("perplexity", "perplexity", "{:.4f}", "perplexity_standard_error"),
    ("perplexity_float", "perplexity of the reference", "{:.4f}", "perplexity_float_standard_error"),
    ("perplexity_ratio", "perplexity, ratio", "{:.5f}", "perplexity_ratio_standard_error"),
    ("kl_mean", "KL, mean", "{:.6f}", "kl_standard_error"),
    ("kl_median", "KL, median", "{:.6f}", None),
    ("kl_90", "KL, 90 %", "{:.5f}", None),
    ("kl_95", "KL, 95 %", "{:.5f}", None),
    ("kl_99", "KL, 99 %", "{:.5f}", None),
    ("kl_99.9", "KL, 99.9 %", "{:.5f}", None),
    ("kl_max", "KL, most", "{:.4f}", None),
    ("top1_agreement", "same top token", "{:.2%}", "top1_standard_error"),
    ("top5_agreement", "same top five", "{:.2%}", "top5_standard_error"),
    ("delta_p_mean", "Δp, mean", "{:.3%}", "delta_p_standard_error"),
    ("delta_p_rms", "Δp, root mean square", "{:.3%}", "delta_p_rms_standard_error"),
    ("delta_p_1", "Δp, 1 %", "{:.2%}", None),
    ("delta_p_99", "Δp, 99 %", "{:.2%}", None),
    ("cosine_mean", "cosine, mean", "{:.5f}", "cosine_standard_error"),
    ("cosine_5", "cosine, 5 %", "{:.5f}", None),
    ("cosine_min", "cosine, least", "{:.5f}", None),
    ("overlap_1", "same nearest sentence", "{:.2%}", "overlap_1_standard_error"),
    ("overlap_5", "shared of 5 nearest", "{:.2%}", "overlap_5_standard_error"),
    ("overlap_10", "shared of 10 nearest", "{:.2%}", "overlap_10_standard_error"),
    ("spearman", "Spearman of similarities", "{:.5f}", "spearman_standard_error"),
    ("accuracy", "accuracy", "{:.2%}", "accuracy_standard_error"),
    ("accuracy_float", "accuracy of the reference", "{:.2%}", "accuracy_float_standard_error"),
    ("same_label", "same label", "{:.2%}", "same_label_standard_error"),
    ("logit_difference", "largest difference of logits, of their range", "{:.2%}", None),
)
_COST = (
    ("prefill_tokens_per_second", "tokens/s reading", "{:,.0f}", 1.0),
    ("decode_tokens_per_second", "tokens/s generating", "{:,.0f}", 1.0),
    ("sentences_per_second", "sentences/s, one at a time", "{:,.0f}", 1.0),
    ("latency_p50", "latency 50 %, ms", "{:.3g}", 1e3),
    ("latency_p95", "latency 95 %, ms", "{:.3g}", 1e3),
    ("load_seconds", "loaded in, s", "{:.2f}", 1.0),
    ("joules_per_token", "joules a token", "{:.3g}", 1.0),
    ("joules_per_sentence", "joules a sentence", "{:.3g}", 1.0),
)


def measured_rows(record: Mapping[str, Any]) -> list[Row]:
    """(what, value, error): what was read, the answers, what they cost."""
    answers, cost = record["answers"], record.get("cost") or {}
    rows: list[Row] = [("text", record["data"], ""), ("size", megabytes(record["bytes"]), "")]
    if "tokens" in answers:
        how = f"{answers['tokens']:,} tokens, windows of {record['context']}, {record['scored']}"
        rows.append(("scored", how, ""))
    elif "sentences" in answers:
        rows.append(("sentences", f"{answers['sentences']:,}", ""))
    for key, what, form, error in _ANSWERS:
        if key in answers:
            found = form.format(answers[error]) if error else ""
            rows.append((what, form.format(answers[key]), found))
    if record.get("kl_is_lower_bound"):
        rows.append(("", "KL is a lower bound: a log knows the likeliest tokens only", ""))
    structured = record.get("structured")
    if structured:
        interval = f"{structured['valid_low']:.0%} to {structured['valid_high']:.0%}"
        rows.append(("valid answers", f"{structured['valid']:.1%} of {structured['prompts']}", interval))
        rows.append(("that begin with JSON", f"{structured['json']:.1%}", ""))
    for key, what, form, factor in _COST:
        if cost.get(key) is not None:
            rows.append((what, form.format(cost[key] * factor), ""))
    if "peak_memory_bytes" in cost:
        rows.append(("peak memory", megabytes(cost["peak_memory_bytes"]), ""))
    return rows


def slice_rows(record: Mapping[str, Any]) -> list[Row]:
    """(which tokens, how many, KL, its error, same top token)."""
    rows = []
    for kind, what in (("by_position", "position {} to {}"), ("by_frequency", "seen {} to {} times")):
        for one in record["slices"][kind]:
            numbers = one["kl_mean"], one["kl_standard_error"]
            rows.append(
                (
                    what.format(one["from"], one["to"]),
                    f"{one['tokens']:,}",
                    *(f"{number:.5f}" for number in numbers),
                    f"{one['top1_agreement']:.1%}",
                )
            )
    return rows


def layer_columns(record: Mapping[str, Any]) -> Row:
    """What ``layer_rows`` has, in words."""
    alone = f"{shown_of(record['layers'][0]).name} alone"
    return "tensor", "type", "weight dB", "own dB", "output dB", alone, "±"


def layer_rows(record: Mapping[str, Any]) -> list[Row]:
    """(tensor, type, the three ratios in dB, the loss it causes alone, its error), the worst first."""
    measure = shown_of(record["layers"][0])
    worst = sorted(record["layers"], key=lambda one: -measure.loss(one))
    return [
        (
            one["name"].removesuffix(".weight"),
            one["type"].removeprefix("GGUF, "),
            *(f"{one[key]:.1f}" if key in one else "" for key in ("weight_snr", "own_snr", "output_snr")),
            f"{measure.loss(one):.3g}",
            f"{one[measure.error]:.1g}",
        )
        for one in worst[:_MOST_LAYERS]
    ]
