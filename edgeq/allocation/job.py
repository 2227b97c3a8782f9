"""What a converter asks of allocation, whatever format it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgeq.allocation import allocate
from edgeq.allocation.candidates import Candidate
from edgeq.allocation.goal import Wanted, times
from edgeq.allocation.meter import Runtime
from edgeq.allocation.split import Split, split_of
from edgeq.calibration.text import Text
from edgeq.evaluation.loss import loss_of
from edgeq.evaluation.proof import model_of
from edgeq.source import ModelSource

Types = Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """A model, what its file shall be, and the text that it is calibrated and measured on."""

    source: ModelSource
    wanted: Wanted
    text: Text
    progress: Callable[[str, int, int], None]

    @cached_property
    def split(self) -> Split:
        """What of the text is measured on, and what is calibrated on."""
        return split_of(self.source, self.text)

    def record(
        self,
        options: Mapping[str, Sequence[Candidate]],
        trial: Callable[[Types], AbstractContextManager[Runtime]],
        *,
        fixed_bytes: int,
        header: int = 0,
        all_types: Callable[[Types], Types] = dict,
    ) -> dict[str, Any]:
        """What was found, as edgeq.json has it: ``types`` by tensor, each of them one that ``trial`` was asked for.

        The rest is as in ``allocate.Request``; ``header`` bytes do not count as bits of weights. Raises GateError
        where nothing meets the goal, UsageError for a goal that the model cannot have, InputError for a text too short.
        """
        self.wanted.check_loss(self.source.path, loss_of(self.source))
        request = allocate.Request(
            source=self.source,
            model=model_of(self.source),
            split=self.split,
            goal=self.wanted.goal(self.source.parameters(), header),
            options=options,
            fixed_bytes=fixed_bytes,
            trial=trial,
            all_types=all_types,
            times=times(self.source, self.wanted.machine),
            progress=self.progress,
        )
        return allocate.allocate(request).record()
