"""The example of docs/deploy.md runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import tiny_gguf

from edgeq.apps.pack import pack
from edgeq.apps.registry import find, layouts

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/deploy.md").read_text("utf-8")


def test_the_example_runs(tmp_path: Path) -> None:
    model = tiny_gguf.write(tmp_path / "tiny.gguf")
    for version in ("v1", "v2", "v3"):
        pack(model, find("edgeq"), tmp_path / "out" / version)
    example = re.search(r"```python\n(.*?)```", TEXT, re.S)
    assert example is not None
    code = example[1].replace('"def main("', '"t1 t2"').replace("max_tokens=16", "max_tokens=2")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "v2/edgeq []" in done.stdout


def test_every_layout_is_in_the_table() -> None:
    assert sorted(re.findall(r"^\| `([^`]+)` \|", TEXT, re.M)) == sorted([*layouts(), "--app"])
