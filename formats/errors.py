"""The one exception tree. Its root stands on the lowest floor, because every floor raises it."""

from __future__ import annotations

from pathlib import Path


class EdgeqError(Exception):
    """A problem the user can act on: one line that says what is wrong, where, and what to do.

    ``exit_code`` is the command's exit status: 1 bad input or environment, 2 usage, 3 a gate said no.
    """

    exit_code = 1


class FormatError(EdgeqError):
    """A file that breaks its own format.

    The message is one line: ``{path}: {problem}[; {remedy}]``; its parts are attributes too.
    """

    def __init__(self, path: str | Path, problem: str, remedy: str = "") -> None:
        super().__init__(f"{path}: {problem}" + (f"; {remedy}" if remedy else ""))
        self.path = Path(path)
        self.problem, self.remedy = problem, remedy


def innermost(error: BaseException) -> BaseException:
    """What an error was raised from, at the bottom."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class OutputExistsError(EdgeqError):
    """The output is there already, and the user did not say to replace it."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(f"{path}: exists already; pass --force to replace it")
        self.path = Path(path)
