"""One file a format. A data set is added by a line in `READERS`."""

from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.readers.ntu import Ntu
from ssl_skeleton.data.readers.ntu_actions import NTU_ACTIONS
from ssl_skeleton.data.readers.nw_ucla import NwUcla
from ssl_skeleton.data.synthetic import ACTIONS

READERS: dict[str, Reader] = {
    reader.dataset: reader
    for reader in (
        Ntu("ntu60", NTU_ACTIONS[:60]),
        Ntu("ntu120", NTU_ACTIONS),
        Ntu("synthetic", ACTIONS),
        NwUcla(),
    )
}
