import itertools
import pickle
from pathlib import Path

import pytest
import torch
from builders import one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from same_runs import same
from torch import Tensor, nn

from ssl_skeleton.encoders.torch_file import read_torch
from ssl_skeleton.errors import UserError
from ssl_skeleton.training.optimiser_state import load_optimiser
from ssl_skeleton.training.schedule import AdamWConfig, Optimiser, SGDConfig

OPTIMISERS: tuple[Optimiser, ...] = (SGDConfig(momentum=0), SGDConfig(nesterov=True), AdamWConfig())
HERE = Path("stage.pt")


def inputs(steps: int) -> Tensor:
    return torch.randn(steps, 4, 2, generator=torch.Generator().manual_seed(0))


def go_on(module: nn.Module, optimiser: torch.optim.Optimizer, batches: Tensor) -> list[Tensor]:
    """Some steps; gives the weights."""
    for x_nd in batches:
        optimiser.zero_grad()
        (module(x_nd) ** 2).mean().backward()
        optimiser.step()
    return [weight.detach() for weight in module.parameters()]


def trained(config: Optimiser = OPTIMISERS[-1], steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A module and its optimiser after some steps."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    optimiser = config.build(module.parameters())
    go_on(module, optimiser, inputs(steps))
    return module, optimiser


@pytest.mark.parametrize("config", OPTIMISERS)
def test_an_optimiser_goes_on_as_if_it_had_never_stopped(config, tmp_path):
    module, optimiser = trained(config)
    torch.save([module.state_dict(), optimiser.state_dict()], tmp_path / "a.pt")
    weights, state = read_torch(tmp_path / "a.pt")
    again, fresh = trained(config, steps=0)
    again.load_state_dict(weights)
    load_optimiser(fresh, config, state, HERE)
    assert all(map(torch.equal, go_on(module, optimiser, inputs(5)), go_on(again, fresh, inputs(5))))


def test_the_options_of_an_optimiser_are_the_recipes():
    """Whoever wrote the state: its rate may be a tensor, and its keys any."""
    _, optimiser = trained()
    state = optimiser.state_dict()
    before = [dict(group, params=None) for group in optimiser.param_groups]
    hostile = {"lr": torch.full((3,), torch.inf), "betas": None, "foreach": "x", "fused": [1], "more": [1]}
    state["param_groups"][0] |= hostile
    load_optimiser(optimiser, OPTIMISERS[-1], state, HERE)
    assert [dict(group, params=None) for group in optimiser.param_groups] == before


def test_a_state_that_is_saved_again_at_once_is_the_same():
    _, optimiser = trained()
    optimiser.param_groups[0]["lr"] = 0.123  # as the schedule sets it
    state, (_, fresh) = optimiser.state_dict(), trained(steps=0)
    load_optimiser(fresh, OPTIMISERS[-1], state, HERE)
    assert same(fresh.state_dict(), state)


def test_no_two_weights_share_what_is_remembered():
    _, optimiser = trained(OPTIMISERS[1])
    state, shared = optimiser.state_dict(), torch.ones(3)
    state["state"] = {number: {"momentum_buffer": shared} for number in (1, 3)}
    state["state"][2] = {"momentum_buffer": shared[:1].expand(3, 3)}
    load_optimiser(optimiser, OPTIMISERS[1], state, HERE)
    buffers = [entry["momentum_buffer"] for entry in optimiser.state.values()]
    assert len({buffer.data_ptr() for buffer in [*buffers, shared]}) == 4
    assert all(buffer.is_contiguous() for buffer in buffers)


def hostile(change) -> dict:
    state = trained()[1].state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("state"), "it remembers nothing of any weight"),
        (lambda state: state.update(state=[]), "it remembers nothing of any weight"),
        (lambda state: state.pop("param_groups"), "it has no groups of weights"),
        (lambda state: state.update(param_groups=[1]), "it has no groups of weights"),
        (lambda state: state.update(param_groups=[]), "it has other groups of weights"),
        (lambda state: state["param_groups"][0].pop("params"), "it has other groups of weights"),
        (lambda state: state["param_groups"][0].pop("lr"), "it should have betas, lr, weight_decay"),
        (lambda state: state["param_groups"][0].update(params=[0, 1, 2]), "it has other groups"),
        (lambda state: state["param_groups"][0].update(params=[0, 1, 2, 4]), "it has other groups"),
        (lambda state: state["param_groups"][0].update(params=[torch.ones(2)]), "it has other groups"),
        (lambda state: state["param_groups"].append(state["param_groups"][0]), "it has other groups"),
        (lambda state: state["state"].update({4: {}}), "it remembers a weight that is not there"),
        (lambda state: state["state"].update({-1: {}}), "it remembers a weight that is not there"),
        (lambda state: state["state"].update({"0": {}}), "it remembers a weight that is not there"),
        (lambda state: state["state"].update({0: None}), "it remembers nothing of any weight"),
        (lambda state: state["state"][0].pop("step"), "remember step, exp_avg, exp_avg_sq of weight 0"),
        (lambda state: state["state"][1].update(more=1), "remember step, exp_avg, exp_avg_sq of weight 1"),
        (lambda state: state["state"][1].update(step=1), r"step of weight 1 is not of shape \(\)"),
        (
            lambda state: state["state"][1].update(step=torch.ones(3)),
            r"step of weight 1 is not of shape \(\)",
        ),
        (lambda state: state["state"][0].update(exp_avg=torch.ones(2, 3)), r"is not of shape \(3, 2\)"),
        (lambda state: state["state"][0].update(exp_avg=torch.ones(3, 2).int()), r"is not of shape \(3, 2\)"),
        (lambda state: state["state"][0].update(exp_avg=None), r"is not of shape \(3, 2\)"),
        (lambda state: state["state"][0]["exp_avg"].fill_(torch.nan), "exp_avg of weight 0 is not finite"),
    ],
)
def test_a_state_of_another_optimiser(change, message):
    _, optimiser = trained()
    before = pickle.dumps(optimiser.state_dict())
    with pytest.raises(UserError, match=message) as error:
        load_optimiser(optimiser, OPTIMISERS[-1], hostile(change), HERE)
    line = one_line(error.value)
    assert line.startswith("stage.pt: of another optimiser than the recipe's, adamw (")
    assert pickle.dumps(optimiser.state_dict()) == before


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(OPTIMISERS, 2)))
def test_a_state_of_another_kind_of_optimiser(one, other):
    if {one, other} == set(OPTIMISERS[:2]) and not one.momentum:
        return  # plain descent remembers nothing, from which momentum can begin
    with pytest.raises(UserError, match="of another optimiser than the recipe's"):
        load_optimiser(trained(other)[1], other, trained(one)[1].state_dict(), HERE)


def states() -> st.SearchStrategy:
    """Trees like an optimiser's state, each part of which may be anything."""
    leaf = st.one_of(
        st.none(),
        st.integers(-2, 5),
        st.floats(),
        st.text(max_size=3),
        st.builds(torch.full, st.sampled_from([(), (3,), (3, 2), (0,)]), st.floats(-9, 9)),
    )
    entry = st.dictionaries(st.sampled_from(["step", "exp_avg", "exp_avg_sq", "more"]), leaf) | leaf
    right = st.just(trained()[1].state_dict()["state"][0])
    group = st.fixed_dictionaries(
        {"params": st.just([0, 1, 2, 3]) | st.lists(st.integers(-1, 4), max_size=4)},
        optional=dict.fromkeys(("lr", "betas", "weight_decay", "more"), leaf),
    )
    whole = st.fixed_dictionaries(
        {"params": st.just([0, 1, 2, 3]), **dict.fromkeys(("lr", "betas", "weight_decay"), leaf)}
    )
    return st.fixed_dictionaries(
        {
            "state": st.dictionaries(st.integers(0, 3) | st.text(max_size=2), right | entry, max_size=3)
            | leaf,
            "param_groups": st.lists(whole | group, min_size=1, max_size=1) | leaf,
        }
    )


@settings(max_examples=200, deadline=None)
@given(state=states())
def test_any_state_is_refused_in_one_line_or_can_be_gone_on_from(state):
    module, optimiser = trained(steps=0)
    try:
        load_optimiser(optimiser, OPTIMISERS[-1], state, HERE)
    except UserError as error:
        assert one_line(error)  # noqa: PT017 (it may well go through)
    go_on(module, optimiser, inputs(1))
