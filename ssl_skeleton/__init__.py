"""Self-supervised representation learning on 3D skeleton sequences."""

import os

# An idle thread of OpenMP spins for many milliseconds, which the threads of a GRU's two directions would wait
# for. This lets it give way after some microseconds; it is read once, when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
