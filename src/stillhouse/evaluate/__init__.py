"""Ranking metrics, paired tests, slices, latency and the gate's rules."""
