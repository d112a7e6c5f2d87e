import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_skeleton.training.config import TrainingConfig
from ssl_skeleton.training.schedule import AdamWConfig, CosineConfig, SGDConfig, StepConfig


def test_the_rate_of_a_batch_is_in_proportion():
    config = TrainingConfig(
        batch=256,
        lr_of_batch=32,
        optimiser=SGDConfig(lr=0.1),
        schedule=StepConfig(milestones=(3,), factor=0.5),
    )
    assert config.rate(2.9) == pytest.approx(0.8)
    assert config.rate(3.0) == pytest.approx(0.4)


@given(
    batch=st.integers(1, 4096),
    meant=st.none() | st.integers(1, 4096),
    lr=st.floats(1e-6, 10),
    epoch=st.floats(0, 40),
)
def test_any_rate_is_the_schedules_share_of_the_scaled_one(batch, meant, lr, epoch):
    schedule = CosineConfig(warmup=3.0)
    config = TrainingConfig(
        epochs=40, batch=batch, lr_of_batch=meant, optimiser=AdamWConfig(lr=lr), schedule=schedule
    )
    expected = lr * schedule.rate(epoch, 40) * (batch / meant if meant else 1)
    assert config.rate(epoch) == pytest.approx(expected)


def test_by_default_the_rate_is_as_it_is_given():
    assert TrainingConfig(batch=8, optimiser=SGDConfig(lr=0.3)).rate(0.0) == 0.3
