"""One file per consumer, found by ``edgeq.apps.registry``."""
