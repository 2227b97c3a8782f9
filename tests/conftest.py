"""Its being here puts this folder on the import path: tests import ``ggml`` and ``block_samples`` by name."""
