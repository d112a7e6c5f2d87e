"""Encoders, one file each. An encoder is added by a line in `ENCODERS` and its config in `AnyEncoder`."""

from ssl_skeleton.encoders.gru import GRUConfig

AnyEncoder = GRUConfig
