import pytest
import torch
from torch import nn

from ssl_skeleton.pretext.momentum import follow, momentum_twin


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.999])
def test_it_follows_by_the_formula(momentum):
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    twin = momentum_twin(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    before = [parameter.double().clone() for parameter in twin.parameters()]
    follow(twin, module, momentum)
    for old, new, target in zip(before, twin.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(new.double(), momentum * old + (1 - momentum) * target.double())


def test_the_twin_is_a_copy_without_gradients():
    module = nn.Linear(3, 2)
    twin = momentum_twin(module)
    assert torch.equal(twin.weight, module.weight)
    assert twin.weight.data_ptr() != module.weight.data_ptr()
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_statistics_stay_the_twin_s_own():
    module = nn.BatchNorm1d(2)
    twin = momentum_twin(module)
    module.running_mean.fill_(5)
    follow(twin, module, 0.5)
    assert not twin.running_mean.any()
