import pytest
import torch
from tiny import assert_is_textbook, random_clips
from torch.nn import functional

from ssl_skeleton.encoders.st_gcn import STGCNConfig
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")


def norm(layer, x_nctv):
    return functional.batch_norm(x_nctv, None, None, layer.weight, layer.bias, training=True)


def textbook(encoder, x_nctvm):
    """ST-GCN as it is usually written: (N M, C, T, V), pointwise convolution, then einsum over the parts."""
    clips, channels, frames, joints, bodies = x_nctvm.shape
    x = x_nctvm.permute(0, 4, 3, 1, 2).reshape(clips * bodies, joints * channels, frames)
    x = norm(encoder.input_norm, x).view(-1, joints, channels, frames).permute(0, 2, 3, 1)
    for block in encoder.blocks:
        weight_pcd = block.spatial.convolution.weight_pcd
        z = functional.conv2d(x, weight_pcd.transpose(1, 2).flatten(0, 1)[..., None, None])
        graphs_pvv = block.spatial.graphs_pvv
        if block.spatial.importance_pvv is not None:
            graphs_pvv = graphs_pvv * block.spatial.importance_pvv
        y = torch.einsum("npctv,pwv->nctw", z.unflatten(1, (len(weight_pcd), -1)), graphs_pvv)
        y = functional.relu(norm(block.spatial.norm, y))
        y = functional.conv2d(
            y, block.temporal.convolution.convolution.weight, stride=(block.size.stride, 1), padding=(4, 0)
        )
        y = norm(block.temporal.norm, y)
        if block.shortcut is not None and block.shortcut.pointwise is not None:
            weight = block.shortcut.pointwise.weight[..., None, None]
            x = norm(block.shortcut.norm, functional.conv2d(x, weight, stride=(block.size.stride, 1)))
        x = functional.relu(y if block.shortcut is None else y + x)
    return x.mean(dim=3).unflatten(0, (clips, bodies)).mean(dim=1).transpose(1, 2)


@pytest.mark.parametrize("partition", ["uniform", "distance", "spatial"])
@pytest.mark.parametrize("edge_importance", [False, True])
def test_it_is_the_textbook_form(partition, edge_importance):
    config = STGCNConfig(width=0.125, dropout=0.0, partition=partition, edge_importance=edge_importance)
    encoder = config.build(LAYOUT, 3, 2).double()
    for name, parameter in encoder.named_parameters():
        if "importance" in name or "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    assert_is_textbook(encoder, textbook, LAYOUT)


def test_a_part_weighs_each_neighbour_alike():
    for partition, parts in (("uniform", 1), ("distance", 2), ("spatial", 3)):
        encoder = STGCNConfig(partition=partition, width=0.1, depth=0.1).build(LAYOUT, 3, 1)
        graphs_pvv = encoder.blocks[0].spatial.graphs_pvv
        assert graphs_pvv.shape == (parts, 25, 25)
        torch.testing.assert_close(graphs_pvv.sum(dim=(0, 2)), torch.ones(25))
        assert (encoder.blocks[0].spatial.importance_pvv == 1).all()


@pytest.mark.parametrize("blocks", [9, 10])
def test_sizes_as_published(blocks):
    encoder = STGCNConfig(blocks=blocks).build(LAYOUT, 3, 2)
    assert [block.size.outputs for block in encoder.blocks] == [64] * (blocks - 6) + [128] * 3 + [256] * 3
    assert encoder.strides == [1] * (blocks - 6) + [2, 1, 1, 2, 1, 1]
    assert encoder.dim == 256
    assert encoder.blocks[0].shortcut is None


def test_dropout_is_for_training_only():
    encoder, clips = STGCNConfig(width=0.1, depth=0.1).build(LAYOUT, 3, 1), random_clips(LAYOUT, [8])
    assert not torch.equal(encoder(clips.x, clips.lengths), encoder(clips.x, clips.lengths))
    encoder.eval()
    assert torch.equal(encoder(clips.x, clips.lengths), encoder(clips.x, clips.lengths))
