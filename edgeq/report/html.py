"""report.html: one self-contained page for all exports and evaluations of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from edgeq.report.evaluation import layer_rows, measured_rows, slice_rows
from edgeq.report.facts import facts, megabytes
from edgeq.report.front_plot import front_plot
from edgeq.report.layer_plot import layer_view
from edgeq.report.plots import error_by_layer, size_by_type


def render(exports: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page as HTML text; nothing in it is loaded from elsewhere."""
    environment = Environment(loader=PackageLoader("edgeq.report", "."), autoescape=select_autoescape(["j2"]))
    environment.filters["megabytes"] = megabytes
    sections = []
    for record in exports:
        errors = error_by_layer(record["tensors"])
        sections.append(
            {
                "record": record,
                "facts": facts(record),
                "sizes": Markup(size_by_type(record["tensors"])),
                "errors": Markup(errors) if errors else None,
                "front": Markup(front_plot(record["allocation"])) if "allocation" in record else None,
            }
        )
    evaluated = [_evaluated(record) for record in evaluations]
    return environment.get_template("report.html.j2").render(sections=sections, evaluations=evaluated)


def _evaluated(record: Mapping[str, Any]) -> dict[str, Any]:
    layers = record.get("layers")
    return {
        "record": record,
        "rows": measured_rows(record),
        "slices": slice_rows(record) if record.get("slices") else [],
        "layers": layer_rows(record) if layers else [],
        "plot": Markup(layer_view(layers)) if layers else None,
    }
