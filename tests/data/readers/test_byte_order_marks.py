"""Programs of Windows write three bytes before a text, which say that it is UTF-8 and nothing else."""

import codecs

import pytest
from examples import EXAMPLES

from ssl_skeleton.data.readers import open_reader

TEXTS = (".txt", ".json", ".amc", ".asf", ".bvh")
FORMATS_OF_TEXT = (
    *("nw_ucla", "pku_mmd1", "pku_mmd2", "msr_action3d", "sbu", "utkinect", "florence3d"),
    *("cmu", "hdm05", "bvh"),
)


@pytest.mark.parametrize("name", FORMATS_OF_TEXT)
def test_a_byte_order_mark_makes_no_difference(tmp_path, name):
    source = tmp_path / "source"
    about = EXAMPLES[name](source)
    plain = open_reader(name, [source], about)
    wanted = [clip for entry in plain.entries for clip in plain.read(entry)]
    marked = [path for path in source.rglob("*") if path.suffix in TEXTS]
    assert marked
    for path in marked:
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    reader = open_reader(name, [source], about)
    found = [clip for entry in reader.entries for clip in reader.read(entry)]
    assert reader.facts == plain.facts
    assert [(clip.name, clip.label, clip.subject) for clip in found] == [
        (clip.name, clip.label, clip.subject) for clip in wanted
    ]
    for clip, same in zip(found, wanted, strict=True):
        assert [track.x_tvc.tolist() for track in clip.tracks] == [
            track.x_tvc.tolist() for track in same.tracks
        ]
