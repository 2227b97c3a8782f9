"""Model checkpoints as their authors publish them."""
