"""One file a format. A data set is added by a line in `READERS`."""

from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.readers.nw_ucla import NwUcla

READERS: dict[str, Reader] = {reader.dataset: reader for reader in (NwUcla(),)}
