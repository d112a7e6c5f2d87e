import json
import pickle
from contextlib import suppress

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_clips
from torch import nn

from ssl_skeleton.data.views.normalise import NormaliseConfig
from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.encoders.pooling import pooled_dim, represent
from ssl_skeleton.encoders.released import Released, ReleasedConfig, load_released, save_released
from ssl_skeleton.encoders.shift_gcn import ShiftGCNConfig
from ssl_skeleton.encoders.st_gcn import STGCNConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")
TINY = {"width": 0.0625, "depth": 0.1}
GRU = GRUConfig(hidden=4, layers=1)
KINDS = pytest.mark.parametrize("kind", [".safetensors", ".pt"])


def released(config=GRU, *, classes=3, **options) -> Released:
    torch.manual_seed(0)
    about = ReleasedConfig(config=config, layout=LAYOUT, coordinates=("x", "y", "z"), bodies=2, **options)
    encoder = about.build()
    with torch.no_grad():
        encoder.train()(random_clips(LAYOUT, [5, 7], bodies=2).x * 3, torch.tensor([5, 7]))
    head = nn.Linear(pooled_dim(encoder.dim, about.pooling), classes).eval() if classes else None
    return Released(**dict(about), encoder=encoder.eval(), head=head)


@KINDS
@pytest.mark.parametrize(
    "config", [GRU, STGCNConfig(**TINY), ShiftGCNConfig(**TINY, spatial="local", bias=True)]
)
@pytest.mark.parametrize("classes", [0, 3])
def test_what_was_saved_is_loaded(kind, config, classes, tmp_path):
    options = {"frames": 300, "normalise": "agcn", "source": "here 'and' \u00fcber", "streams": ("joint",)}
    one = released(config, classes=classes, **options)
    path = tmp_path / f"encoder{kind}"
    save_released(path, one)
    other = load_released(str(path))
    assert dict(other).keys() == dict(one).keys()
    assert ReleasedConfig.from_tree(other.to_tree(), "") == ReleasedConfig.from_tree(one.to_tree(), "")
    assert (other.frames, other.normalise, other.source) == (300, "agcn", options["source"])
    assert (other.layout, other.config) == (LAYOUT, config)
    assert not other.encoder.training
    clips = random_clips(LAYOUT, [6, 2], bodies=2)
    assert torch.equal(other.encoder(clips.x, clips.lengths), one.encoder(clips.x, clips.lengths))
    if classes:
        assert torch.equal(other.scores(clips.x, clips.lengths), one.scores(clips.x, clips.lengths))
    else:
        with pytest.raises(UserError, match="was released without a classifier"):
            other.scores(clips.x, clips.lengths)


def test_another_normalisation_and_other_streams_are_kept(tmp_path):
    normalise = NormaliseConfig(facing="yaw", scale="torso")
    torch.manual_seed(0)
    about = ReleasedConfig(
        config=GRU,
        layout=LAYOUT,
        coordinates=("x", "y"),
        bodies=1,
        normalise=normalise,
        streams=("joint", "motion"),
    )
    save_released(tmp_path / "a.safetensors", Released(**dict(about), encoder=about.build()))
    other = load_released(tmp_path / "a.safetensors")
    assert (other.normalise, other.streams, other.coordinates) == (normalise, ("joint", "motion"), ("x", "y"))
    assert other.head is None
    assert other.encoder.gru.input_size == 25 * 2 * 2


def test_other_languages_can_read_it(tmp_path):
    save_released(tmp_path / "a.safetensors", released())
    save_released(tmp_path / "a.pt", released())
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="np") as file:
        metadata = {key: json.loads(text) for key, text in file.metadata().items()}
        names = set(file.keys())
        assert file.get_tensor("head.weight").shape == (3, 8)
    assert (metadata["format"], metadata["bodies"], metadata["config"]["name"]) == (1, 2, "gru")
    assert metadata["layout"]["joints"] == list(LAYOUT.joints)
    tree = torch.load(tmp_path / "a.pt", weights_only=True)
    assert {key: json.loads(text) for key, text in tree.pop("metadata").items()} == metadata
    assert tree.keys() == names
    assert {name.partition(".")[0] for name in names} == {"encoder", "head"}


@pytest.mark.parametrize("pooling", ["mean", "max", "mean_max"])
@pytest.mark.parametrize("config", [GRU, STGCNConfig(**TINY)])
def test_scores_are_of_the_pooled_steps(config, pooling, tmp_path):
    save_released(tmp_path / "a.pt", released(config, pooling=pooling))
    one = load_released(tmp_path / "a.pt")
    clips = random_clips(LAYOUT, [8, 4], bodies=2)  # whole steps: each stands for four frames
    wanted = one.head(represent(one.encoder, clips, pooling))
    torch.testing.assert_close(one.scores(clips.x, clips.lengths), wanted)


@pytest.mark.parametrize("config", [GRU, STGCNConfig(**TINY)])
def test_scores_are_of_the_mean_over_steps(config):
    one = released(config)
    clips = random_clips(LAYOUT, [8, 4], bodies=2)
    wanted = one.head(represent(one.encoder, clips, "mean"))
    torch.testing.assert_close(one.scores(clips.x, clips.lengths), wanted)
    clips = random_clips(LAYOUT, [7, 5, 1], bodies=2)  # the last step counts for one as well
    for clip, length in enumerate([7, 5, 1]):
        span = 1 if config is GRU else 4
        steps_td = one.encoder(clips.x, clips.lengths)[clip, :length:span]
        scores_c = one.scores(clips.x, clips.lengths)[clip]
        torch.testing.assert_close(scores_c, one.head(steps_td.mean(dim=0)))


def test_a_file_that_tells_no_pooling_has_a_classifier_of_means(tmp_path):
    one, path = released(), tmp_path / "a.pt"
    save_released(path, one)
    tree = torch.load(path, weights_only=True)
    del tree["metadata"]["pooling"]  # as older versions wrote it
    torch.save(tree, path)
    clips = random_clips(LAYOUT, [8, 4], bodies=2)
    other = load_released(path)
    assert other.pooling == "mean"
    assert torch.equal(other.scores(clips.x, clips.lengths), one.scores(clips.x, clips.lengths))


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "a.pt"
    save_released(path, released())
    before = path.read_bytes()
    with pytest.raises(UserError, match="already exists; choose another --out, or add --overwrite"):
        save_released(path, released(classes=7))
    assert path.read_bytes() == before
    save_released(path, released(classes=7), overwrite=True)
    assert load_released(path).head.out_features == 7
    torch.save({"mine": torch.ones(2)}, path)
    (tmp_path / "b.pt").mkdir()
    for other in (path, tmp_path / "b.pt"):
        with pytest.raises(UserError, match="holds other things than this command writes"):
            save_released(other, released(), overwrite=True)
    with pytest.raises(UserError, match=r"ends in \.safetensors or \.pt"):
        save_released(tmp_path / "a.bin", released())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        load_released(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A released encoder of each kind, and the bytes of both."""
    folder = tmp_path_factory.mktemp("released")
    contents = {}
    for kind in (".safetensors", ".pt"):
        save_released(folder / f"whole{kind}", released())
        contents[kind] = (folder / f"whole{kind}").read_bytes()
    return folder, contents


@KINDS
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_cut_file(kind, share, files):
    folder, contents = files
    path = folder / f"cut{kind}"
    path.write_bytes(contents[kind][: int(share * len(contents[kind]))])
    assert "damaged or no file of tensors" in refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@KINDS
@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), flipped=st.integers(1, 255))
def test_a_changed_byte_is_no_crash(kind, place, flipped, files):
    folder, contents = files
    content = bytearray(contents[kind])
    content[place % min(len(content), 3000)] ^= flipped
    path = folder / f"changed{kind}"
    path.write_bytes(content)
    with suppress(UserError):
        load_released(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@KINDS
@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=60) | st.text(max_size=40).map(pickle.dumps))
def test_garbage(kind, content, files):
    path = files[0] / f"garbage{kind}"
    path.write_bytes(content)
    refusal(path)


def changed(tmp_path, config=GRU, **changes):
    """A file in which some entries are others; None takes them out. Keys of metadata begin with `_`.

    Texts of metadata stand as they are, anything else as JSON.
    """
    path = tmp_path / "changed.pt"
    save_released(tmp_path / "a.pt", released(config))
    tree = torch.load(tmp_path / "a.pt", weights_only=True)
    for name, value in changes.items():
        key = name.removeprefix("_").replace("__", ".")
        place = tree["metadata"] if name.startswith("_") else tree
        place[key] = json.dumps(value) if place is not tree and not isinstance(value, str) else value
        if value is None:
            del place[key]
    torch.save(tree, path)
    return path


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"metadata": None}, "not a released encoder in format 1"),
        ({"metadata": [1]}, "not a released encoder in format 1"),
        ({"_format": 2}, "not a released encoder in format 1"),
        ({"_format": None}, "not a released encoder in format 1"),
        ({"_bodies": None}, "metadata: bodies: this key is missing"),
        ({"_bodies": 0}, "metadata: bodies: "),
        ({"_bodies": 1}, "encoder.gru.weight_ih_l0 is (12, 150), but should be (12, 75)"),
        ({"_boddies": 1}, "metadata: unknown key 'boddies'; did you mean 'bodies'?"),
        ({"_config": {"name": "gruu"}}, "metadata: config: unknown name 'gruu'; did you mean 'gru'?"),
        ({"_config": {"name": "gru", "hidden": 10**4}}, "config: has more weights than the file holds"),
        ({"_config": {"name": "gru", "hidden": 10**17}}, "metadata: config: cannot be built"),
        ({"_config": {"name": "st_gcn", "width": 16.0, "depth": 16.0}}, "more weights than the file holds"),
        ({"_layout": {"name": "a"}}, "metadata: layout.joints: this key is missing"),
        ({"_normalise": '"agnc"'}, "metadata: normalise: "),
        ({"_bodies": 10**300}, "metadata: config: cannot be built"),
        ({"_bodies": "{"}, "metadata: damaged (Expecting property name"),
        ({"_bodies": "1" * 9999}, "metadata: damaged ("),
        ({"_bodies": "[" * 900 + "]" * 900}, "metadata: "),
        ({"_bodies": "[" * 10**5 + "]" * 10**5}, "metadata: damaged ("),
        ({"_bodies": "NaN"}, "metadata: bodies: "),
        ({"_streams": ["joints"]}, "metadata: streams.0: "),
        ({"head__bias": None}, "head.bias is absent, but should be (3,)"),
        ({"head__weight": None}, "head.bias is (3,), but should be absent"),
        ({"head__weight": torch.ones(24)}, "head.weight is (24,), but should be (classes, 8)"),
        ({"head__weight": torch.ones(3, 8, dtype=torch.int64)}, "head.weight is torch.int64, but should be"),
        ({"head__weight": torch.full((3, 8), torch.nan)}, "head.weight is not finite"),
        ({"head__weight": torch.ones(1).expand(10**9, 8)}, "claims more than the file holds"),
        ({"head__weight": torch.ones(10**15, 0)}, "but should be (classes, 8)"),
        ({"head__weight": torch.eye(8)[:3].to_sparse()}, "it wants torch._utils._rebuild_sparse_tensor"),
        ({"head__weight": [1.0]}, "'head.weight' is no plain tensor"),
        (
            {"head__weight": torch.ones(3, 8, dtype=torch.float8_e4m3fn)},
            "_rebuild_tensor_v3, and what could run",
        ),
        ({"head__weight": torch.ones(3, 8, dtype=torch.float64) * 1e300}, "head.weight is not finite"),
        ({"encoder__more": torch.ones(2)}, "encoder.more is (2,), but should be absent"),
    ],
)
def test_another_content(changes, fault, tmp_path):
    assert fault in refusal(changed(tmp_path, **changes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted(dtype, tmp_path):
    path = changed(tmp_path, head__weight=torch.full((3, 8), 0.5, dtype=dtype))
    assert torch.equal(load_released(path).head.weight, torch.full((3, 8), 0.5))


@pytest.mark.parametrize("shared", [True, False])
def test_metadata_larger_than_its_file(shared, tmp_path):
    """Plain values of a few bytes that are endless once each is copied."""
    values = ["x"]
    for _ in range(40):
        values = [values] * 10
    if not shared:
        values.append(values)
    path = changed(tmp_path)
    tree = torch.load(path, weights_only=True)
    tree["metadata"]["coordinates"] = values
    torch.save(tree, path)
    assert path.stat().st_size < 10**5
    assert "metadata: damaged" in refusal(path)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.complex64])
def test_an_index_list_of_another_type(dtype, tmp_path):
    name = "encoder__blocks__0__spatial__shift_in__index_i"
    line = refusal(changed(tmp_path, ShiftGCNConfig(**TINY), **{name: torch.zeros(75).to(dtype)}))
    assert f"is {dtype}, but should be torch.int64" in line


def test_an_index_list_that_leads_out(tmp_path):
    config = ShiftGCNConfig(**TINY)
    name = "encoder__blocks__0__spatial__shift_in__index_i"
    line = refusal(changed(tmp_path, config, **{name: torch.full((75,), 75)}))
    assert "an index list of 75 places names one that is not there" in line


def test_it_moves_as_a_whole():
    one = released()
    assert one.to(torch.float64) is one
    clips = random_clips(LAYOUT, [6, 2], bodies=2)
    assert one.scores(clips.x.double(), clips.lengths).dtype == torch.float64
    assert {value.device.type for value in one.to("meta").encoder.parameters()} == {"meta"}
    assert one.head.weight.device.type == "meta"
    assert released(classes=0).to(torch.float64).head is None
