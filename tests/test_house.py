"""The house itself: packaging, the direction of imports, a quick and documented command line."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from edgeq.cli import app

ROOT = Path(__file__).parents[1]
# Floor by the name it is imported as; a module may import its own floor and those below.
FLOORS = {"edgeq.formats": 0, "edgeq.kernels_cpu": 1, "edgeq.devices": 2, "edgeq": 3}
FOLDERS = {"formats": 0, "kernels_cpu": 1, "devices": 2, "edgeq": 3}
HEAVY = ("numba", "llvmlite", "onnx", "onnx_ir", "onnxruntime", "llama_cpp", "numpy", "matplotlib", "tokenizers",
         "huggingface_hub", "jinja2", "gguf")  # fmt: skip
HELP_SECONDS = 0.4
HELP_TO_LIBRARIES = 2.2

SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]


def _sources(folder: str) -> Iterator[Path]:
    """The Python files of a top-level folder, without what its symlinks lead to."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        if not any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(ROOT / folder)):
            yield path


@functools.cache
def _packages() -> dict[str, str]:
    """Import name → folder of everything that holds Python files."""
    found = {}
    for top in FOLDERS:
        for folder in {path.parent for path in _sources(top)}:
            parts = folder.relative_to(ROOT).parts
            name = ".".join(parts if top == "edgeq" else ("edgeq", *parts))
            found[name] = "/".join(parts)
    return found


def test_pyproject_lists_every_package():
    assert sorted(SETUP["packages"]) == sorted(_packages())


def test_pyproject_maps_every_package_to_its_folder():
    """setuptools finds edgeq's own subpackages below edgeq; all others must be mapped one by one."""
    mapped = SETUP["package-dir"]
    assert {name: mapped.get(name, name.replace(".", "/")) for name in SETUP["packages"]} == _packages()


def test_every_package_has_an_init():
    assert [folder for folder in _packages().values() if not (ROOT / folder / "__init__.py").is_file()] == []


def test_package_data_exists():
    for package, patterns in SETUP["package-data"].items():
        for pattern in patterns:
            assert list((ROOT / _packages()[package]).glob(pattern)), f"{package}: {pattern}"


def test_every_data_file_is_package_data():
    """What is no Python file would be missing from the wheel."""
    for package, folder in _packages().items():
        listed = {
            path
            for owner, patterns in SETUP["package-data"].items()
            for pattern in patterns
            for path in (ROOT / _packages()[owner]).glob(pattern)
        }
        files = {
            path
            for path in (ROOT / folder).iterdir()
            if path.is_file() and path.suffix not in (".py", ".pyc")
        }
        assert files <= listed, package


def test_test_files_have_names_of_their_own():
    """pytest imports them by their bare names."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_links_let_a_checkout_see_the_floors():
    for name in ("formats", "kernels_cpu", "devices"):
        assert (ROOT / "edgeq" / name).readlink() == Path("..") / name


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _floor(name: str) -> int:
    """The floor that an import reaches; -1 for what is not edgeq's."""
    parts = name.split(".")
    if parts[0] != "edgeq":
        return -1
    return FLOORS.get(".".join(parts[:2]), FLOORS["edgeq"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_down_only(folder):
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _sources(folder)
        for name in _imports(path)
        if _floor(name) > FOLDERS[folder]
    ]
    assert upward == []


@pytest.mark.parametrize("folder", [*FOLDERS, "tests", "benchmarks"])
def test_nobody_imports_a_floor_by_its_bare_name(folder):
    """A second copy of every class would be loaded."""
    bare = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _sources(folder)
        for name in _imports(path)
        if name.split(".")[0] in ("formats", "kernels_cpu", "devices")
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("folder", "banned"),
    [("formats", {"numba", "llvmlite", "onnxruntime", "typer"}), ("kernels_cpu", {"onnx", "onnxruntime", "typer"}),
     ("edgeq", {"torch", "transformers"})],
)  # fmt: skip
def test_a_floor_does_without(folder, banned):
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _sources(folder)
        for name in _imports(path)
        if name.split(".")[0] in banned
    ]
    assert found == []


def test_help_loads_no_heavy_library():
    code = (
        "import sys, json\n"
        "sys.argv = ['edgeq', '--help']\n"
        "from edgeq.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        "    print('\\n' + json.dumps([end.code or 0, sorted(sys.modules)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    assert "Usage: edgeq" in done.stdout
    assert [name for name in HEAVY if name in modules] == []


def test_help_is_quick():
    """The best of some, in processor time; where the machine is slow or busy, measured by its libraries' time."""
    help_seconds, libraries = 1.0, 0.0
    for _ in range(20):
        help_seconds = min(help_seconds, _processor_seconds("-m", "edgeq", "--help"))
        if help_seconds <= max(HELP_SECONDS, HELP_TO_LIBRARIES * libraries):
            return
        loaded = _processor_seconds("-c", "import typer.main, typer.rich_utils")
        libraries = min(libraries or loaded, loaded)
    pytest.fail(f"--help takes {help_seconds:.2f} s, its libraries {libraries:.2f} s")


def _processor_seconds(*arguments: str) -> float:
    # As after an installation: with bytecode, which the first run writes.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _commands() -> dict[str, typer.core.TyperCommand]:
    """Every command by its words; those of a group come after the group."""
    found, waiting = {}, [("", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop(0)
        found[name] = command
        waiting += [(f"{name} {sub}".strip(), c) for sub, c in getattr(command, "commands", {}).items()]
    return found


@pytest.mark.parametrize("name", _commands())
def test_every_command_and_option_has_help(name):
    command = _commands()[name]
    assert command.help
    assert len(command.help.splitlines()[0]) > 20
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []


@pytest.mark.parametrize("name", [n for n, c in _commands().items() if not hasattr(c, "commands")])
def test_every_command_has_an_example_and_json(name):
    command = _commands()[name]
    examples = re.findall(rf"`(edgeq {name} [^`]+)`", command.help or "")
    assert examples
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options
    for example in examples:  # an example must not name an option that is gone
        assert set(re.findall(r"\s(--?[a-z][\w-]*)", example)) <= options


def _project_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_no_file_names_this_machine():
    """Nothing may depend on where it was written."""
    places = re.compile(rb"\.\./shared\b|/work/(?:main|shared)\b|/root/|/home/\w+/")
    found = []
    for path in _project_files():
        if path == Path(__file__) or path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if b"\0" not in content[:8000] and (match := places.search(content)):
            found.append(f"{path.relative_to(ROOT)}: {match[0].decode()}")
    assert found == []
