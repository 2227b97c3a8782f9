"""All profiles: those that come with edgeq, and the user's own, which win.

The user's folder is ``$EDGEQ_DEVICES``, else ``edgeq/devices`` under the system's place for configuration.
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
from pathlib import Path

from edgeq.devices.profile import Profile, read_profile
from edgeq.formats.errors import EdgeqError

BUILT_IN = Path(__file__).with_name("profiles")


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
    """The profile of that id, name or alias, any case; raises EdgeqError naming the nearest ones.

    Only an alias needs all profiles read.
    """
    paths = profile_paths()
    wanted = _key(name)
    for profile_id, path in paths.items():
        if _key(profile_id) == wanted:
            return _read(path)
    names = {}
    for profile in all_profiles():
        for text in (profile.id, profile.name, *profile.aliases):
            names[_key(text)] = profile
    if wanted in names:
        return names[wanted]
    near = difflib.get_close_matches(wanted, names, 4, 0.5)
    hint = ", ".join(dict.fromkeys(names[key].id for key in near))
    raise EdgeqError(
        f"{name}: no such device" + (f"; nearest: {hint}" if hint else "") + "; see `edgeq devices list`"
    )


def _key(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


@functools.cache
def _read(path: Path) -> Profile:
    return read_profile(path)
