"""Wires one stage: reads its params, opens its run, calls it, writes what it said."""
