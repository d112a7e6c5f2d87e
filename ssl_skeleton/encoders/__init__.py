"""Encoders, one file each. An encoder is added by its config in `AnyEncoder`."""

from ssl_skeleton.encoders.gru import GRUConfig

AnyEncoder = GRUConfig
