"""All profiles: those that come with edgeq, and the user's own, which win.

The user's folder is ``$EDGEQ_DEVICES``, else ``edgeq/devices`` under the system's place for configuration.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from edgeq.devices.profile import Profile, read_profile
from edgeq.formats.atomic import write_text
from edgeq.formats.errors import EdgeqError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_THIS = "this"  # of the machine that measured itself (``edgeq devices detect --save``)
BUILT_IN = Path(__file__).with_name("profiles")
# Words that people leave out or put in: makers, and what systems write around a CPU's name.
_IDLE = {
    "amd",
    "apple",
    "aws",
    "cpu",
    "core",
    "google",
    "intel",
    "processor",
    "qualcomm",
    "r",
    "samsung",
    "tm",
}
_NEARLY = 0.9  # difflib's ratio of a misspelling


def user_folder() -> Path:
    """Where a user's own profiles lie; it need not exist."""
    if own := os.environ.get("EDGEQ_DEVICES"):
        return Path(own)
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData/Roaming")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "edgeq/devices"


def add_profile(path: Path, profile_id: str, force: bool) -> Profile:
    """Put a copy of a profile into the user's folder under an id.

    Raises FormatError for a file that is no profile, EdgeqError for an id that is none, OutputExistsError.
    """
    if not _ID.fullmatch(profile_id) or profile_id == _THIS:
        raise EdgeqError(
            f"{profile_id}: is no id for a device; take letters, digits, dots and dashes, and not {_THIS!r}"
        )
    read_profile(path)
    target = user_folder() / f"{profile_id}.toml"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, path.read_text("utf-8"), force=force)
    return read_profile(target)


def profile_paths() -> dict[str, Path]:
    """Every profile's file by its id, in order; a user's own stands for one of the same id that comes with edgeq."""
    found = {path.stem: path for path in BUILT_IN.glob("*.toml")}
    folder = user_folder()
    if folder.is_dir():
        found |= {path.stem: path for path in folder.glob("*.toml")}
    return dict(sorted(found.items()))


def all_profiles() -> list[Profile]:
    """Every profile; raises FormatError for a broken one, which may be the user's."""
    return [_read(path) for path in profile_paths().values()]


def find(name: str) -> Profile:
    """The profile of that id, name or alias, any case, or of the longest one that ``name`` holds as whole words.

    "AMD EPYC 9654 96-Core Processor" is the EPYC 9654. Raises EdgeqError naming the nearest ones. Only what is no id
    needs all profiles read.
    """
    paths = profile_paths()
    wanted = key_of(name)
    for profile_id, path in paths.items():
        if key_of(profile_id) == wanted:
            return _read(path)
    names = {}
    for profile in all_profiles():
        for text in (profile.id, profile.name, *profile.aliases):
            names[key_of(text)] = profile
    found = names.get(wanted) or _held_by(name, names)
    if found:
        return found
    near = difflib.get_close_matches(key_of(name), names, 4, 0.5)
    hint = ", ".join(dict.fromkeys(names[key].id for key in near))
    raise EdgeqError(
        f"{name}: no such device" + (f"; nearest: {hint}" if hint else "") + "; see `edgeq devices list`"
    )


def _held_by(text: str, names: Mapping[str, Profile]) -> Profile | None:
    """The profile of the longest key that some successive words of the text make up.

    None for none or several, and where the whole text is nearly another one's name: "iphone 15 prro" is no iPhone 15.
    """
    words = _words(text)
    runs = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    held = runs & names.keys()
    longest = max(map(len, held), default=0)
    found = {names[key].id: names[key] for key in held if len(key) == longest}
    near = {names[key].id for key in difflib.get_close_matches(key_of(text), names, 1, _NEARLY)}
    return found.popitem()[1] if len(found) == 1 and near <= found.keys() else None


def key_of(name: str) -> str:
    """What two spellings of a name have in common."""
    return "".join(_words(name))


def _words(text: str) -> list[str]:
    words = re.findall(r"[0-9a-z]+", text.lower())
    return [word for word in words if word not in _IDLE] or words


@functools.cache
def _read(path: Path) -> Profile:
    return read_profile(path)
