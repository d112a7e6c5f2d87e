"""One file a format. A data set is added by a line in `FORMATS`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.asf_amc import Cmu, Hdm05
from ssl_skeleton.data.readers.base import Format, Reader
from ssl_skeleton.data.readers.bvh import Bvh
from ssl_skeleton.data.readers.coco import Coco17
from ssl_skeleton.data.readers.florence import Florence
from ssl_skeleton.data.readers.mediapipe import MediaPipe
from ssl_skeleton.data.readers.msr_action3d import ALL_ACTIONS, AS1, AS2, AS3, MsrAction3d
from ssl_skeleton.data.readers.ntu import NTU60_SPLITS, NTU120_SPLITS, Ntu
from ssl_skeleton.data.readers.ntu_actions import NTU_ACTIONS
from ssl_skeleton.data.readers.nw_ucla import NwUcla
from ssl_skeleton.data.readers.openpose import OpenPose
from ssl_skeleton.data.readers.own import Own
from ssl_skeleton.data.readers.pku_mmd import PkuMmd
from ssl_skeleton.data.readers.pku_mmd_actions import PKU2_ACTIONS, PKU_ACTIONS
from ssl_skeleton.data.readers.sbu import Sbu
from ssl_skeleton.data.readers.utd_mhad import UtdMhad
from ssl_skeleton.data.readers.utkinect import UtKinect
from ssl_skeleton.data.source import Source
from ssl_skeleton.data.synthetic import ACTIONS
from ssl_skeleton.errors import UserError, nearest

# As people see them listed: data sets of depth cameras, motion capture, pose estimators, one's own.
FORMATS: dict[str, Format] = {
    kind.name: kind
    for kind in (
        Format("ntu60", "NTU RGB+D 60", partial(Ntu, "ntu60", NTU_ACTIONS[:60], NTU60_SPLITS)),
        Format("ntu120", "NTU RGB+D 120", partial(Ntu, "ntu120", NTU_ACTIONS, NTU120_SPLITS)),
        Format("nw_ucla", "NW-UCLA Multiview Action 3D", NwUcla),
        Format("utd_mhad", "UTD-MHAD", UtdMhad),
        Format("pku_mmd1", "PKU-MMD, phase I", partial(PkuMmd, "pku_mmd1", PKU_ACTIONS)),
        Format("pku_mmd2", "PKU-MMD, phase II", partial(PkuMmd, "pku_mmd2", PKU2_ACTIONS)),
        Format("msr_action3d", "MSR-Action3D", partial(MsrAction3d, "msr_action3d", ALL_ACTIONS)),
        Format(
            "msr_action3d_as1",
            "MSR-Action3D, set AS1",
            partial(MsrAction3d, "msr_action3d_as1", AS1),
        ),
        Format(
            "msr_action3d_as2",
            "MSR-Action3D, set AS2",
            partial(MsrAction3d, "msr_action3d_as2", AS2),
        ),
        Format(
            "msr_action3d_as3",
            "MSR-Action3D, set AS3",
            partial(MsrAction3d, "msr_action3d_as3", AS3),
        ),
        Format("sbu", "SBU Kinect Interaction", Sbu),
        Format("utkinect", "UTKinect-Action3D", UtKinect),
        Format("florence3d", "Florence 3D Actions", Florence),
        Format("cmu", "CMU motion capture, and other ASF/AMC files of its kind", Cmu, about="optional"),
        Format("hdm05", "HDM05, cut into actions (ASF/AMC)", Hdm05),
        Format("bvh", "motion capture in BVH files", Bvh, about="optional"),
        Format("openpose", "OpenPose's folders of JSON files", OpenPose, about="needed"),
        Format("coco_17", "JSON with COCO keypoints (AlphaPose, MMPose, YOLO)", Coco17, about="needed"),
        Format("mediapipe", "MediaPipe's landmarks in JSON or CSV", MediaPipe, about="needed"),
        Format("own", "your own arrays (.npy, .npz) or CSV tables", Own, about="needed"),
        Format("synthetic", "what synthesise writes", partial(Ntu, "synthetic", ACTIONS, NTU60_SPLITS)),
    )
}


def open_reader(name: str, roots: Sequence[Path], about: Path | None = None) -> Reader:
    """The reader of a format, opened on folders, zip archives or files.

    Raises UserError for an unknown name, a missing or needless about file, and sources that do not fit.
    """
    if name not in FORMATS:
        raise UserError(f"data set '{name}' is unknown; {nearest(name, FORMATS)}")
    kind = FORMATS[name]
    if about is None and kind.about == "needed":
        raise UserError(
            f"{name} needs --about FILE, which says what the recordings are; see docs/own_data.md"
        )
    if about is not None and kind.about == "none":
        raise UserError(f"{about}: {name} takes no --about; what it is, is known")
    told = About.read(about) if about else None
    reader = kind.open(Source(*roots), told)
    reader.stamp = told.stamp() if told else ""
    return reader
