"""A compiler for functions that only kernels call: it stops at LLVM code, which the kernels take in.

Numba's own optimises each function, then again within each of its callers, and makes machine code of all
of them. Only the kernel's is ever run, so only there is it done: two thirds of the time to compile. What is
overridden here is private to Numba; ``test_jit.py`` holds it to what these classes expect.
"""

from __future__ import annotations

import itertools
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

_numbers = itertools.count()


class _InlinedLibrary(JITCodeLibrary):
    """LLVM code ready to be linked into others, each function simplified by itself.

    Without even that Q4_K's encoder is 5 % slower: what is simplified first is inlined in a better order.
    """

    def _optimize_final_module(self) -> None:
        """Left to the kernels."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True  # without handing it to the execution engine

    def get_pointer_to_function(self, name: str) -> int:
        """0, as for all that has no machine code; links what the function calls."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        return _NoEnvironment


class _NoEnvironment:
    """In place of a code generator: the environment is for calls of Python, which helpers do not make."""

    @staticmethod
    def set_env(name: str, environment: object) -> None:
        pass


class InlinedCompiler(Compiler):
    """For ``njit(pipeline_class=InlinedCompiler)``; the result can be called by compiled code alone."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        if self.state.library is None:
            codegen = self.state.targetctx.codegen()
            self.state.library = _InlinedLibrary(codegen, f"edgeq-helper-{next(_numbers)}")
