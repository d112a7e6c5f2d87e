"""Skeleton sequences: readers, the store they fill, splits, and the batches drawn from it."""
