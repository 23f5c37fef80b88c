"""One rank of a small run, started by torchrun: `program.py OUT OPTIMIZER DTYPE [--bad] [--stop] [--minutes] [--mixed]`.

--bad: the loss of one rank is not a number once. --stop: rank 0 is asked to stop half way. --minutes: the budget is time, and the
ranks' clocks disagree. --mixed: rank 0 sees text alone, rank 1 images and audio.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from onebase.objective.base import Batch, Losses
from onebase.objective.infill import Infill
from onebase.train.callbacks import JsonLog
from onebase.train.config import MuonConfig
from onebase.train.loop import run
from onebase.train.parallel import Parallel
from onebase.train.signals import exit_now
from tests.resume.workers import mixed_job, small_job


class BadOnOneRank(Infill):
    """The loss of one rank is not a number at the fourth step."""

    calls = 0

    def losses(self, base: object, batch: Batch) -> Losses:
        found = super().losses(base, batch)  # type: ignore[arg-type]
        type(self).calls += 1
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1 and self.calls == 4:
            total, n = found["next_token"]
            return {"next_token": (total * float("nan"), n)}
        return found


def main() -> None:
    out, optimizer, dtype = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    par = Parallel.start(torch.device("cpu"))
    steps = 6 if "--stop" in sys.argv else 12
    muon = MuonConfig() if optimizer == "muon" else None
    budget = {"steps": None, "minutes": 0.05} if "--minutes" in sys.argv else {"steps": 12}
    make, micro = (mixed_job, 2) if "--mixed" in sys.argv else (small_job, 3)
    job = make(None, dtype=dtype, micro_batch=micro, muon=muon, **budget)
    if "--minutes" in sys.argv and par.rank == 1:  # this rank alone would plan about a third of the steps
        true = time.perf_counter
        time.perf_counter = lambda: 3 * true()
    if "--bad" in sys.argv:
        old = job.objective
        assert isinstance(old, Infill)
        job = replace(job, objective=BadOnOneRank(old.length, old.marks, old.rate))

    class Stops(JsonLog):
        def step(self, info) -> None:  # type: ignore[no-untyped-def]
            super().step(info)
            if info.step + 1 == steps:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGTERM)  # rank 0 alone is asked; all ranks must agree

    callback = Stops(out / "log.jsonl") if steps < 12 else JsonLog(out / "log.jsonl")
    state = run(replace(job, out=out, callbacks=[callback], parallel=par)).state
    (out / f"rank-{par.rank}.json").write_text(json.dumps({"step": state.step, "total": state.total}))
    par.stop()
    exit_now()


main()
