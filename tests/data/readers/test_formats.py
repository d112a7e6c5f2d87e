import re
from pathlib import Path

from ssl_skeleton.data.readers import FORMATS

DOCS = Path(__file__).parents[3] / "docs" / "datasets.md"


def test_formats_are_listed_as_in_the_table_of_the_docs():
    rows = re.findall(r"^\| (`[^|]*`) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(FORMATS)


def test_data_sets_of_depth_cameras_go_first_then_mocap_then_estimators_then_ones_own():
    kinds = ("ntu60", "florence3d", "cmu", "bvh", "openpose", "mediapipe", "own", "synthetic")
    assert sorted(kinds, key=list(FORMATS).index) == list(kinds)
