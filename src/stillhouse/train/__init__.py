"""The training loop, its resuming and its early stopping."""
