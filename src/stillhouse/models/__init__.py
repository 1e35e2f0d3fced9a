"""Architectures, one a file, behind one small protocol."""
