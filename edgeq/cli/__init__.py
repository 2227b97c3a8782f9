"""The command line. Commands import what they need when they run, so ``edgeq --help`` is quick."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from edgeq import __version__
from edgeq.cli._output import printable, warn
from edgeq.errors import EdgeqError, FallbackWarning

_LONGEST_LINE = 900  # characters of an error

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
        with _signals_raise() as stopped, _warnings_in_a_line():
            _run(stopped)
    except EdgeqError as error:
        _fail(str(error), error.exit_code)
    except _Interrupted as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("out of memory; close other programs or take a smaller model", 1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nobody is left to tell
        raise SystemExit(1) from None
    except OSError as error:  # a path that the system refuses: too long, not ours to read, on a broken disk
        _fail(f"{error.filename or 'edgeq'}: {error.strerror or error}", 1)


def _run(stopped: list[str]) -> None:
    """The command; what it made of a signal's exception, such as an ImportError, is that exception again."""
    try:
        app()
    except Exception:
        if stopped:
            raise _Interrupted(stopped[0]) from None
        raise


class _Interrupted(BaseException):
    """Ctrl-C or a request to end; no KeyboardInterrupt, because typer makes a silent exit 130 of that."""


@contextmanager
def _signals_raise() -> Iterator[list[str]]:
    """SIGINT and SIGTERM unwind the stack, so that temporary files go; an ignored signal stays ignored.

    Yields what is said of those that came: libraries in C may turn the exception into one of their own.
    """
    stopped: list[str] = []

    def stop(number: int, frame: object) -> None:
        stopped.append("interrupted" if number == signal.SIGINT else "terminated")
        raise _Interrupted(stopped[-1])

    here = threading.current_thread() is threading.main_thread()  # elsewhere handlers cannot be set
    wanted = (signal.SIGINT, signal.SIGTERM) if here else ()
    before = {number: signal.getsignal(number) for number in wanted}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, stop)
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """What a session tells of running on the CPU has no file and line of ours."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, FallbackWarning):
                warn(str(message))
            else:
                others(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _fail(message: str, code: int) -> None:
    line = printable(" ".join(message.split()))
    if len(line) > _LONGEST_LINE:  # a file's own words, or a path of thousands of characters
        line = f"{line[: _LONGEST_LINE - 200]} … {line[-200:]}"
    print(f"edgeq: error: {line}", file=sys.stderr)
    raise SystemExit(code)
