"""Running bundles on a device with guardrails: hashes, a canary, shadow runs, a chain of fallbacks.

``Runner`` is all of it; docs/deploy.md shows it at work. Each model runs in a process of its own, so that one that
crashes, hangs or is killed for its memory takes nothing with it.
"""

from edgeq.deploy.canary import Canary, bucket
from edgeq.deploy.failures import DeployError, Failure
from edgeq.deploy.runner import Answer, Runner
from edgeq.deploy.shadow import Shadow

__all__ = ["Answer", "Canary", "DeployError", "Failure", "Runner", "Shadow", "bucket"]
