"""Writes files like those of CMU's motion capture."""

from pathlib import Path

from asf_amc_files import write_pair

ABOUT = """
dataset: cmu_walk
fps: 120
labels: labels.csv
"""


def write_example(folder: Path) -> Path:
    """Write three clips of two subjects below `folder`; the about file and its labels stand beside it."""
    write_pair(folder / "subjects" / "01", "01", "01_01")
    write_pair(folder / "subjects" / "01", "01", "01_02", frames=3, seed=1)
    write_pair(folder / "subjects" / "143", "143", "143_32", seed=2)
    (folder.parent / "labels.csv").write_text("clip,label\n01_01,walk\n01_02,jump\n143_32,walk\n")
    about = folder.parent / "about.yaml"
    about.write_text(ABOUT)
    return about
