"""Searching a student's settings: trials of one stage on one night's data, and what they say."""
