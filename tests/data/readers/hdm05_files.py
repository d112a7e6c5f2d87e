"""Writes files like those of HDM05, cut into single actions."""

from pathlib import Path

from asf_amc_files import write_pair


def write_example(folder: Path) -> None:
    """Write three clips of two actors and two classes below `folder`."""
    cartwheel = folder / "cartwheelLHandStart1Reps"
    write_pair(cartwheel, "HDM_bd", "HDM_bd_cartwheelLHandStart1Reps_001_120")
    write_pair(cartwheel, "HDM_mm", "HDM_mm_cartwheelLHandStart1Reps_003_120", frames=3, seed=1)
    write_pair(folder / "clap1Reps", "HDM_bd", "HDM_bd_clap1Reps_012_120", frames=5, seed=2)
