"""The one way kernels are compiled: no GIL, IEEE arithmetic unless said otherwise, cached on disk."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.runtime.nrt import rtsys

from edgeq.kernels_cpu import compiling
from edgeq.kernels_cpu.inlined import InlinedCompiler

F = TypeVar("F", bound=Callable[..., Any])

_PACKAGE = __package__
# Reorders sums and fuses multiply-adds, so that dot products vectorise; keeps NaN and infinity.
FAST_SUMS = frozenset({"reassoc", "contract", "nsz"})


def kernel(function: F) -> F:
    """Compile without fastmath: encoders and decoders owe the plain codecs every bit."""
    return _compile(function, fastmath=False)


def helper(function: F) -> F:
    """As ``kernel``, for what only kernels call; compiled and cached as a part of them."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": InlinedCompiler}
    return cast(F, _jit(function, fastmath=False, **options))


def step(function: F) -> F:
    """As ``kernel``, for what is called by its address only (``edgeq.kernels_cpu.steps``)."""
    return _compile(function, fastmath=False, no_cpython_wrapper=True)


def fast_kernel(function: F) -> F:
    """Compile with sums that may be reordered: for products, never for codecs."""
    return _compile(function, fastmath=set(FAST_SUMS))


def _jit(function: Callable[..., Any], **options: Any) -> Any:
    # error_model="numpy": division by zero gives inf or NaN, as in C, instead of a check and an exception.
    return njit(nogil=True, error_model="numpy", **options)(function)


def _compile(function: F, fastmath: bool | set[str], **options: bool) -> F:
    dispatcher = _jit(function, fastmath=fastmath, **options)
    compiling.known(dispatcher)
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # neither the package's folder nor a user cache can be written: compile each time
        return cast(F, dispatcher)
    _stamp_with_helpers(dispatcher)
    dispatcher._cache.load_overload = functools.partial(_load, dispatcher._cache)
    return cast(F, dispatcher)


def _load(cache: Any, signature: Any, context: Any) -> Any:
    """The cache's ``load_overload`` without its ``refresh``, which imports all that Numba can compile, and SciPy.

    A kernel that is compiled already needs none of it but the runtime, and who compiles refreshes anyway. It is a third
    of a warm start.
    """
    rtsys.initialize(context)
    with cache._guard_against_spurious_io_errors():
        return cache._load_overload(signature, context)


def _stamp_with_helpers(dispatcher: Any) -> None:
    """Make the disk cache depend on the helpers too: Numba looks only at the kernel's own file.

    Every file of this package that the kernel's module imports names from, directly or not, joins the
    version, which is compared before anything is unpickled: what is pickled may name types of an older edgeq.
    ``test_jit.py`` holds this to its word, since the attributes are Numba's private ones.
    """
    cache_file = dispatcher._cache._cache_file
    module = sys.modules[dispatcher.py_func.__module__]
    cache_file._version = f"{cache_file._version} {source_hash(module)}"


def source_hash(module: ModuleType) -> str:
    """SHA-256 over the sources of a module and of all it imports from this package."""
    digest = hashlib.sha256()
    for path in sorted(_sources(module)):
        digest.update(_file_hash(path))
    return digest.hexdigest()


def _sources(module: ModuleType) -> set[str]:
    found, waiting = {module}, [module]
    while waiting:
        new = set(_owners(waiting.pop())) - found
        found |= new
        waiting += new
    return {owner.__file__ for owner in found if owner.__file__ is not None}


@functools.cache
def _file_hash(path: str) -> bytes:
    """A module has many kernels, and they import the same few others."""
    return hashlib.sha256(Path(path).read_bytes()).digest()


_known: dict[ModuleType, list[ModuleType]] = {}


def _owners(module: ModuleType) -> list[ModuleType]:
    """The modules that its globals come from; remembered once it is imported to the end."""
    if module in _known:
        return _known[module]
    found = [owner for value in list(vars(module).values()) if (owner := _owner(value)) is not None]
    if not getattr(module.__spec__, "_initializing", True):
        _known[module] = found
    return found


def _owner(value: Any) -> ModuleType | None:
    """The module of this package that a module's global comes from, or None."""
    function = getattr(value, "py_func", getattr(value, "__wrapped__", value))  # kernels, intrinsics
    if isinstance(function, ModuleType):
        name = function.__name__
    elif isinstance(function, (FunctionType, type)):
        name = function.__module__
    else:
        return None
    return sys.modules.get(name) if name.startswith(f"{_PACKAGE}.") else None
