"""Stillhouse: nightly knowledge distillation for recommenders."""
