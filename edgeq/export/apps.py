"""``--app``: the written files laid out as apps' libraries load them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeq.export.request import Request, Result
from edgeq.hub import model_name

if TYPE_CHECKING:
    from edgeq.apps.registry import Layout


def find_layouts(request: Request) -> list[Layout]:
    """The layouts that ``--app`` names; what would refuse to be written is refused before the work."""
    if not request.apps:
        return []
    from edgeq.apps.pack import check_format, check_target
    from edgeq.apps.registry import find

    layouts = [find(name) for name in dict.fromkeys(request.apps)]
    for layout in layouts:
        check_format(layout, request.to)
        check_target(request.out / layout.name, request.force)
    return layouts


def pack_for(request: Request, layouts: Sequence[Layout], result: Result) -> None:
    """Lay the written files out for each app; the lint's warnings are told, its errors kept in the result."""
    if not layouts:
        return
    from edgeq.apps.pack import pack

    name = model_name(request.model)
    result.record["apps"] = []
    for layout in layouts:
        request.progress(f"packing for {layout.name}", 0, 1)
        bundle = pack(result.path, layout, request.out, name=name, record=result.record, force=request.force)
        for line in bundle.warnings():
            request.warn(f"{layout.name}: {line}")
        result.refused += [f"{bundle.folder}: {line}" for line in bundle.errors()]
        result.record["apps"].append(bundle.record())
        result.files.append(bundle.folder)
