"""This machine as a profile: what its operating system says of it, and what of that is not known by class."""

from __future__ import annotations

import dataclasses

from edgeq.devices.host.facts import HostFacts
from edgeq.devices.host.read import host_facts, onnxruntime_providers
from edgeq.devices.host.to_profile import THIS, profile_of
from edgeq.devices.library import profile_paths
from edgeq.devices.profile import Profile, read_profile

__all__ = ["THIS", "HostFacts", "host_facts", "onnxruntime_providers", "profile_of", "this_machine"]


def this_machine() -> Profile:
    """The user's measured profile of this machine (``this.toml``), with the memory there is now; else what is found."""
    found = profile_of(host_facts())
    saved = profile_paths().get(THIS)
    if saved is None:
        return found
    profile = read_profile(saved)
    memory = dataclasses.replace(profile.memory, gb=found.memory.gb)
    return dataclasses.replace(profile, memory=memory, limits=(*found.limits, *profile.limits))
