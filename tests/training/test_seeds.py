import torch

from ssl_skeleton.training.seeds import derive_seed, generator


def test_a_purpose_has_its_own_seed():
    purposes = [
        (seed, stage, epoch, step, draw)
        for seed in range(3)
        for stage in ("contrast", "fuse")
        for epoch in range(3)
        for step in range(12)
        for draw in ("input", "key")
    ]
    seeds = [derive_seed(*purpose) for purpose in purposes]
    assert len(set(seeds)) == len(purposes)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_never_change():
    assert derive_seed(0, "contrast", 1, 2, "input") == 8975152042915845288
    assert torch.equal(torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a")))
