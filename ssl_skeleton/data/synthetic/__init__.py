"""Synthetic recordings: an embedded data set that walks the same road as NTU RGB+D."""

from ssl_skeleton.data.synthetic.recordings import ACTIONS, synthesise, synthesise_motion

__all__ = ["ACTIONS", "synthesise", "synthesise_motion"]
