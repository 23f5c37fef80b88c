"""Schedule, memory, FLOPs, devices."""

import itertools

import pytest
import torch

from onebase.base.config import TextShape, base_flops, base_parameters, text_base
from onebase.base.model import BaseModel
from onebase.errors import ConfigError, UserError
from onebase.model.device import compute_dtype, pick_device
from onebase.train.config import ScheduleConfig, TrainConfig
from onebase.train.flops import counted_flops
from onebase.train.memory import check_memory, training_memory
from onebase.train.optim import factor
from tests.resume.workers import small_job


def test_schedule_rises_stays_and_falls() -> None:
    cfg = ScheduleConfig(warmup=4, warmdown=0.5, final=0.1)
    f = [factor(cfg, s, 20) for s in range(20)]
    assert f[:4] == [0.25, 0.5, 0.75, 1.0]
    assert f[4:11] == [1.0] * 7
    assert all(a > b for a, b in itertools.pairwise(f[10:]))
    assert f[-1] == pytest.approx(0.1 + 0.9 / 10)
    assert [factor(ScheduleConfig(warmup=0, warmdown=0.0), s, 9) for s in range(9)] == [1.0] * 9


def test_memory_grows_with_what_it_holds() -> None:
    cfg = text_base(TextShape(width=128, depth=4, head_dim=64))
    train = TrainConfig(steps=1, batch_size=8, sequence_length=256)
    one, four = training_memory(cfg, train, 1), training_memory(cfg, train, 4)
    assert one.weights == 4 * base_parameters(cfg)
    assert four.activations == 4 * one.activations
    assert training_memory(cfg, train, 1, world=2).optimizer == one.optimizer // 2


def test_a_run_that_cannot_fit_is_refused_with_a_setting_that_does() -> None:
    cfg = text_base(TextShape(width=1024, depth=8, head_dim=64))
    with pytest.raises(UserError, match="GiB are free") as e:
        check_memory(
            cfg, TrainConfig(steps=1, batch_size=4096, sequence_length=4096), 4096, torch.device("cpu")
        )
    assert "train.micro_batch=" in e.value.remedy
    huge = text_base(TextShape(width=32768, depth=200, head_dim=64))
    with pytest.raises(UserError, match="GiB") as e:
        check_memory(huge, TrainConfig(steps=1), 1, torch.device("cpu"))
    assert "lower model.width" in e.value.remedy


def test_flops_counted_are_near_the_formula() -> None:
    """The formula counts keys that are seen; the kernels also compute some that are masked, so they may count a little more."""
    cfg = text_base(TextShape(width=128, depth=3, head_dim=32, vocab_size=512, context=128))
    job = small_job(None)
    model = BaseModel(cfg)
    model.reset(0)
    from onebase.modality.text.sample import Tokens
    from onebase.objective.next_token import NextToken

    ids = torch.arange(128).numpy().astype("int32")
    loss = ids > 0
    batch = NextToken(128).batch([[Tokens(ids, loss, "a", "s")]], 0)
    counted = counted_flops(model, NextToken(128), batch) / 128
    assert counted == pytest.approx(base_flops(cfg, 128), rel=0.1)
    assert all(p.grad is None for p in model.parameters())
    assert job.model.device.type == "cpu"


def test_devices_and_formats() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="unknown device"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no cuda device"):
            pick_device("cuda")
    assert compute_dtype("fp32", torch.device("cpu")) == torch.float32
    with pytest.raises(UserError, match="dtype"):
        compute_dtype("fp8", torch.device("cpu"))


def test_schedule_config_is_checked() -> None:
    with pytest.raises(ConfigError):
        ScheduleConfig(warmdown=1.5)
