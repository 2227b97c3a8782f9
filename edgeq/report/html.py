"""report.html: one self-contained page for all exports and evaluations of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from edgeq.report.by_layer import errors_by_role, sizes_by_type
from edgeq.report.evaluation import layer_columns, layer_rows, measured_rows, slice_rows
from edgeq.report.facts import facts, megabytes


def render(exports: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page as HTML text; nothing in it is loaded from elsewhere."""
    environment = Environment(loader=PackageLoader("edgeq.report", "."), autoescape=select_autoescape(["j2"]))
    environment.filters["megabytes"] = megabytes
    sections = []
    for record in exports:
        sections.append(
            {
                "record": record,
                "facts": facts(record),
                "sizes": sizes_by_type(record["tensors"]),
                "errors": _error_plot(record),
                "front": _front_plot(record),
            }
        )
    evaluated = [_evaluated(record) for record in evaluations]
    return environment.get_template("report.html.j2").render(sections=sections, evaluations=evaluated)


# Matplotlib, which takes half a second to import, only where there is something to draw.
def _error_plot(record: Mapping[str, Any]) -> Markup | None:
    lines = errors_by_role(record["tensors"])
    if not lines:
        return None
    from edgeq.report.plots import error_by_layer

    return Markup(error_by_layer(lines))


def _front_plot(record: Mapping[str, Any]) -> Markup | None:
    if "allocation" not in record:
        return None
    from edgeq.report.front_plot import front_plot

    return Markup(front_plot(record["allocation"]))


def _layer_plot(layers: Sequence[Mapping[str, Any]]) -> Markup:
    from edgeq.report.layer_plot import layer_view

    return Markup(layer_view(layers))


def _evaluated(record: Mapping[str, Any]) -> dict[str, Any]:
    layers = record.get("layers")
    return {
        "record": record,
        "rows": measured_rows(record),
        "slices": slice_rows(record) if record.get("slices") else [],
        "columns": layer_columns(record) if layers else (),
        "layers": layer_rows(record) if layers else [],
        "plot": _layer_plot(layers) if layers else None,
    }
