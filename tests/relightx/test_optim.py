"""Schedule, weight decay and averaged weights do what the config says."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from relightx.optim import MovingAverage, OptimConfig, build_optimizer, build_schedule, go_to_step


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))


def rates(network: nn.Module, config: OptimConfig, steps: int) -> list[float]:
    optimizer = build_optimizer(network, config)
    schedule = build_schedule(optimizer, config, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_the_rate_warms_up_in_a_line_and_falls_along_a_cosine_to_zero(network):
    found = rates(network, OptimConfig(learning_rate=2.0, warmup_steps=10), 50)
    for step in range(10):
        assert found[step] == pytest.approx(2.0 * (step + 1) / 10)
    assert max(found) == pytest.approx(2.0)
    assert found[30] == pytest.approx(1.0)  # half-way from 10 to 50
    assert found[20] == pytest.approx(1 + math.cos(math.pi / 4))
    assert found[50] == pytest.approx(0, abs=1e-9)
    assert all(one > next_one for one, next_one in pairwise(found[10:]))


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_a_run_shorter_than_its_warm_up_still_learns(network, steps):
    found = rates(network, OptimConfig(learning_rate=1.0, warmup_steps=100), steps)
    assert all(rate > 0 for rate in found[:steps])
    assert found[steps] == pytest.approx(0, abs=1e-9)


def test_to_go_to_a_step_gives_the_rates_of_having_walked(network):
    config = OptimConfig(warmup_steps=5)
    walked = rates(network, config, 30)
    for start in (3, 5, 17):
        optimizer = build_optimizer(network, config)
        schedule = build_schedule(optimizer, config, 30)
        go_to_step(schedule, start)
        for step in range(start, 30):
            assert [group["lr"] for group in optimizer.param_groups] == [walked[step]] * 2
            assert schedule.get_last_lr() == [walked[step]] * 2
            optimizer.step()
            schedule.step()


def test_only_filters_and_matrices_decay(network):
    optimizer = build_optimizer(network, OptimConfig(learning_rate=0.1, weight_decay=0.5))
    before = {name: value.clone() for name, value in network.named_parameters()}
    for value in network.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    for name, value in network.named_parameters():
        factor = 0.95 if value.ndim > 1 else 1.0
        torch.testing.assert_close(value, before[name] * factor)


def test_the_average_follows_the_weights_it_has_seen():
    network = nn.Linear(1, 1, bias=False)
    average = MovingAverage(network.state_dict(), decay=0.5)
    expected = network.weight.detach().clone()
    for step in range(20):
        nn.init.normal_(network.weight)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach()
        average.update(network.state_dict(), step)
    torch.testing.assert_close(average.values["weight"], expected)


def test_without_decay_the_average_is_the_model(network):
    average = MovingAverage(network.state_dict(), decay=0.0)
    network(torch.rand(4, 3, 3, 3))  # moves the statistics and the counter of batch norm
    with torch.no_grad():
        network[0].weight.add_(1)
    average.update(network.state_dict(), 0)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(average.values[name], value)
    assert average.values["1.num_batches_tracked"] == 1


def test_the_average_is_a_copy(network):
    average = MovingAverage(network.state_dict(), decay=0.9)
    held = average.values["0.weight"].clone()
    with torch.no_grad():
        network[0].weight.add_(1)
    torch.testing.assert_close(average.values["0.weight"], held)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
        ("warmup_steps", -1),
        ("weight_decay", -0.1),
        ("grad_clip_norm", float("nan")),
    ],
)
def test_impossible_values_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"optim.{name} is"):
        OptimConfig(**{name: value})
