"""Measuring what was learned: features once, then probes, each with its baselines beside it."""
