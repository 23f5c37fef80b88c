"""One rank of a small contrastive run, started by torchrun or alone: `pairs_program.py OUT CHUNK`. Writes its losses and its last weights."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from onebase.train.config import AdamWConfig, CheckpointConfig, ScheduleConfig, TrainConfig
from onebase.train.loop import Job, run
from onebase.train.parallel import Parallel, whole_state
from onebase.train.signals import exit_now
from tests.objective.test_pairs import given, small
from tests.resume.workers import FixedRows


def main() -> None:
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    par = Parallel.start(torch.device("cpu"))
    model = small()
    objective, rows = given(model, chunk=int(sys.argv[2]))
    cfg = TrainConfig(
        steps=6,
        batch_size=8,
        sequence_length=12,
        muon=None,
        adamw=AdamWConfig(eps=1e-4),
        schedule=ScheduleConfig(warmup=1),
        dtype="fp32",
        device="cpu",
        checkpoint=CheckpointConfig(every=3),
    )
    result = run(Job(model, objective, FixedRows(rows), cfg, out=out, parallel=par))
    state = whole_state(model)
    if par.main:
        save_file({k: t.contiguous() for k, t in state.items()}, out / "end.safetensors")
        (out / "losses.json").write_text(json.dumps(result.losses))
    par.stop()
    exit_now()


main()
