"""What graph encoders are built of, one file a block.

All of them take features (K, T, V, C) of K bodies, channels last, and where lengths differ a mask (K, T) of
the valid frames: features are zero in other frames, when they come and when they go.
"""
