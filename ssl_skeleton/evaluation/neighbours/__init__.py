"""Nearest neighbours by cosine: exact and the same every time, or approximate with recall told."""
