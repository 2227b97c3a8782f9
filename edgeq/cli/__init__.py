"""The command line. Commands import what they need when they run, so ``edgeq --help`` is quick."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer

from edgeq import __version__
from edgeq.errors import EdgeqError

app = typer.Typer(
    name="edgeq",
    help="One command takes a model to the GGUF file or ONNX graph its device runs best, and proves it.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeq {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """One command takes a model to the GGUF file or ONNX graph its device runs best, and proves it."""


for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}").register(app)


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 1, 2 or 3."""
    try:
        app()
    except EdgeqError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 1)
    except MemoryError:
        _fail("out of memory; close other programs or take a smaller model", 1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nobody is left to tell
        raise SystemExit(1) from None


def _fail(message: str, code: int) -> None:
    line = " ".join(message.split())
    print(f"edgeq: error: {line.encode(errors='backslashreplace').decode()}", file=sys.stderr)
    raise SystemExit(code)
