"""Self-supervised representation learning on 3D skeleton sequences."""

__version__ = "0.1.0"
