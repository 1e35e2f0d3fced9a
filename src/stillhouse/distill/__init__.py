"""Soft targets on disk and the losses that learn from them."""
