"""Kinds of files as arrays; they know no data set."""
