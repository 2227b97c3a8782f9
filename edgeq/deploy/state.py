"""What outlives the process: which models failed how often, which are given up, which one answered last.

A small JSON file, replaced as a whole. A model is known by its manifest's hash, so a new bundle starts afresh.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeq.errors import FormatError
from edgeq.formats.atomic import write_json
from edgeq.json_files import read_json

_MOST = 32  # models that are remembered


@dataclass
class State:
    """``failures`` counts those in a row; ``loading`` is a model whose loading was begun and not ended."""

    path: Path
    failures: dict[str, int] = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)
    last_good: str = ""
    loading: str = ""

    @classmethod
    def read(cls, path: Path) -> State:
        """The file's state; a fresh one where there is no file, or one that cannot be read: it is no reason to stop."""
        try:
            found = read_json(path, dict) if path.exists() else {}
        except FormatError:
            found = {}
        state = cls(path)
        counts = found.get("failures")
        if isinstance(counts, dict):
            state.failures = {key: n for key, n in counts.items() if isinstance(n, int) and n > 0}
        given_up = found.get("given_up")
        if isinstance(given_up, list):
            state.given_up = [one for one in given_up if isinstance(one, str)]
        for key in ("last_good", "loading"):
            if isinstance(found.get(key), str):
                setattr(state, key, found[key])
        return state

    def write(self) -> None:
        """Replace the file; raises EdgeqError where it cannot be written."""
        self.given_up = self.given_up[-_MOST:]
        self.failures = dict(list(self.failures.items())[-_MOST:])
        content = {key: value for key, value in vars(self).items() if key != "path"}
        write_json(self.path, content, force=True)

    def failed(self, model: str, most: int) -> None:
        """Count a failure; the ``most``-th in a row gives the model up."""
        self.failures[model] = self.failures.get(model, 0) + 1
        if self.failures[model] >= most and model not in self.given_up:
            self.given_up.append(model)
        self.write()

    def succeeded(self, model: str) -> None:
        """Note an answer; the file is written only where something changes."""
        if self.failures.pop(model, 0) or self.last_good != model:
            self.last_good = model
            self.write()
