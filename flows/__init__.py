"""Flows that read as prose: one flow a file."""
