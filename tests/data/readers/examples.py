"""A small good example of every format, for the contract of readers and for stores of their kind."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import bvh_files
import cmu_files
import coco_17_files
import florence_files
import hdm05_files
import mediapipe_files
import msr_action3d_files
import ntu_files
import nw_ucla_files
import openpose_files
import own_files
import pku_mmd_files
import sbu_files
import utd_mhad_files
import utkinect_files

from ssl_skeleton.data.readers import open_reader
from ssl_skeleton.data.recording import Facts

# Each writes a good data set below a folder, two clips or more with somebody in them; it gives the path of
# the file that says what they are, which lies beside the folder, when the format takes one.
EXAMPLES: dict[str, Callable[[Path], Path | None]] = {
    "ntu60": ntu_files.write_example,
    "ntu120": ntu_files.write_example,
    "synthetic": ntu_files.write_example,
    "nw_ucla": nw_ucla_files.write_example,
    "pku_mmd1": pku_mmd_files.write_example,
    "pku_mmd2": pku_mmd_files.write_example,
    "msr_action3d": msr_action3d_files.write_example,
    "msr_action3d_as1": msr_action3d_files.write_example,
    "msr_action3d_as2": msr_action3d_files.write_example,
    "msr_action3d_as3": msr_action3d_files.write_example,
    "sbu": sbu_files.write_example,
    "utkinect": utkinect_files.write_example,
    "florence3d": florence_files.write_example,
    "own": own_files.write_example,
    "openpose": openpose_files.write_example,
    "coco_17": coco_17_files.write_example,
    "mediapipe": mediapipe_files.write_example,
    "utd_mhad": utd_mhad_files.write_example,
    "cmu": cmu_files.write_example,
    "hdm05": hdm05_files.write_example,
    "bvh": bvh_files.write_example,
}


@cache
def facts_of(name: str) -> Facts:
    """The facts of a format's example."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        about = EXAMPLES[name](source)
        return open_reader(name, [source], about).facts
