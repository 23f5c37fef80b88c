"""The decode engine: prompts in, text out, token by token. B rows, T time, D width, V vocabulary.

Prompts of different lengths are padded on the left with columns of document -1, which are masked: every row's newest token is then the last
one, and a row gives the same log-probabilities alone and in a batch, with the cache and without. Equal prompts of a batch are read once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.patches import Patches, with_media
from onebase.engine.batching import left_padded, read_once, rows_of
from onebase.engine.constrain import Guide, guides, masked
from onebase.engine.media_prompts import positions_after
from onebase.engine.request import Completion, Finish, Piece, Top, check_prompts
from onebase.engine.sampler import Sampler, Sampling
from onebase.engine.stream import TextStream
from onebase.errors import UserError
from onebase.modality.text.sample import Media
from onebase.model.mask import Cols, mixed
from onebase.model.position import room
from onebase.model.proj import AdapterRouting


@dataclass
class _Row:
    """The state of one answer."""

    number: int
    sampling: Sampling
    left: int
    text: TextStream
    guide: Guide | None = None
    done: bool = False


class Decoder:
    """Decodes a batch of prompts. Call `step` until `live` is False; the caller may stop at any time.

    max_tokens of a request is reduced to what fits in the context. inserts: for each prompt the vectors [N, D] that replace the connector's tokens in
    it, or None. media: for each prompt those that stand in it, of a base of patches. Raises as `check_prompts`, and UserError for a constraint that cannot be satisfied.
    """

    def __init__(
        self,
        base: LoadedBase,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | Sequence[Sampling] | None = None,
        routing: AdapterRouting | None = None,
        inserts: Sequence[Tensor | None] | None = None,
        media: Sequence[Sequence[Media]] | None = None,
    ) -> None:
        check_prompts(base, prompts, routing=routing)
        self._inserts = list(inserts) if inserts and any(x is not None for x in inserts) else []
        self._media = list(media) if media and any(media) else []
        self._began = False
        each = (
            [sampling or Sampling()] * len(prompts)
            if sampling is None or isinstance(sampling, Sampling)
            else list(sampling)
        )
        if len(each) != len(prompts):
            raise UserError(
                f"{len(prompts)} prompts, but {len(each)} samplings", "give one for all, or one for each"
            )
        tokenizer, cfg = base.codec.tokenizer, base.model.cfg.text
        self._model, self._active = base.model, routing
        self._device = base.model.device
        self._names = min(tokenizer.vocab_size, cfg.vocab_size)  # a padded vocabulary has unused ids
        self._stop_ids = tokenizer.stop_ids
        before = base.model.virtual_counts(routing, len(prompts))
        taken = [len(p) + n for p, n in zip(prompts, before, strict=True)]
        self._rows = [
            _Row(
                i,
                s,
                min(s.max_tokens, room(base.model.trunk.cfg, cfg.context, n) - n),
                # An answer to a prompt that ends in text continues that text. A constrained one is exactly the bytes of its tokens.
                TextStream(tokenizer, s.stop, start=g is None and p[-1] in tokenizer.special_ids),
                g,
            )
            for i, (p, n, s, g) in enumerate(
                zip(prompts, taken, each, guides(base.codec, [s.constraint for s in each]), strict=True)
            )
        ]
        self._sampler = Sampler(each, self._device)
        self._once = None if self._inserts or self._media else read_once(prompts, routing)
        read, reading = prompts, routing
        if self._once is not None:
            first, _ = self._once
            read, reading = [prompts[i] for i in first], rows_of(routing, first)
        self._next, self._cols = left_padded(read, self._device)
        longest = self._next.shape[1] if prompts else 0
        self._lengths = [len(p) for p in prompts]
        after = [
            positions_after(n, m)
            for n, m in zip(self._lengths, self._media or [()] * len(prompts), strict=True)
        ]
        self._pos = torch.tensor([[n] for n in after], device=self._device)
        self._doc = torch.zeros_like(self._pos)
        slots = longest + max((r.left for r in self._rows), default=0)
        self._cache = base.model.new_cache(len(read), slots, reading)

    @property
    def live(self) -> bool:
        """Whether any answer is unfinished."""
        return any(not r.done for r in self._rows)

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """Decode one token for every unfinished row; returns a piece for each."""
        empty = [Piece(r.number, "", (), finish="length") for r in self._rows if not r.done and r.left <= 0]
        for row in self._rows:
            row.done = row.done or row.left <= 0
        if not self.live:
            return empty
        self._drop()
        logits_BV = self._logits()
        ids_B = self._sampler(
            masked(logits_BV[:, : self._names], [None if r.done else r.guide for r in self._rows])
        )
        ids = ids_B.tolist()
        logprobs = self._logprobs(logits_BV, ids_B)
        self._next, self._cols = ids_B[:, None], Cols(self._pos, self._doc)
        self._pos = self._pos + 1
        return empty + [
            self._piece(row, ids[i], *logprobs.get(i, ((), ())))
            for i, row in enumerate(self._rows)
            if not row.done
        ]

    def _logits(self) -> Tensor:
        """fp32 [B, V] after the newest token of each row."""
        inserts = [x for x in self._inserts if x is not None]  # row by row
        cols, mask = self._cols, None
        patches: dict[str, Patches] = {}
        if self._media:
            first = [cols.shape[1] - n for n in self._lengths]
            cols, patches = with_media(cols, self._media, first)
            mask = mixed()
        once, routing, decoding = self._once, self._active, self._began
        self._began = True
        if once is not None:
            routing = rows_of(routing, once[0])
        self._inserts, self._media, self._once = [], [], None  # only for the prompts, not for later steps
        # Always SDPA: a kernel compiled per shape, as in training, would be compiled again for every length of the cache.
        out = self._model.hidden(
            self._next,
            cols,
            mask,
            cache=self._cache,
            routing=routing,
            inserts=torch.cat(inserts) if inserts else None,
            media=patches,
            impl="sdpa",
        )
        logits_BV = self._model.text.logits(out.hidden[:, -1], routing, decoding=decoding)
        if once is None:
            return logits_BV
        index = torch.tensor(once[1], device=self._device)
        self._cache.keep(index)
        return logits_BV[index]

    def _piece(self, row: _Row, id: int, logprobs: tuple[float, ...], top: tuple[Top, ...]) -> Piece:
        row.left -= 1
        finish: Finish | None = None
        text = ""
        if id in self._stop_ids:
            finish = "stop"
        else:
            text = row.text.push(id)
            complete = row.guide is not None and row.guide.push(id)
            if row.text.stopped or complete:
                finish = "stop"
            elif row.left == 0:
                finish = "length"
        if finish is not None:
            row.done = True
            text += row.text.flush()
        return Piece(row.number, text, (id,), logprobs, top, finish)

    def _logprobs(
        self, logits_BV: Tensor, ids_B: Tensor
    ) -> dict[int, tuple[tuple[float, ...], tuple[Top, ...]]]:
        """By row index: the chosen token's log-probability and the most likely tokens, for the rows that request them."""
        wanted = [i for i, r in enumerate(self._rows) if not r.done and r.sampling.logprobs is not None]
        if not wanted:
            return {}
        index = torch.tensor(wanted, device=self._device)
        logp_RV = logits_BV[index].log_softmax(-1)
        chosen = logp_RV.gather(-1, ids_B[index, None]).squeeze(-1).tolist()
        most = min(max(self._rows[i].sampling.logprobs or 0 for i in wanted), logp_RV.shape[-1])
        best, which = (t.tolist() for t in logp_RV.topk(most, dim=-1))
        out: dict[int, tuple[tuple[float, ...], tuple[Top, ...]]] = {}
        for n, i in enumerate(wanted):
            top = self._rows[i].sampling.logprobs or 0
            pairs = tuple(zip(which[n][:top], best[n][:top], strict=True))
            out[i] = (chosen[n],), ((pairs,) if top else ())
        return out

    def _drop(self) -> None:
        """Remove finished rows from the batch once they are half of it: this copies the cache less often than after every row."""
        keep = [i for i, r in enumerate(self._rows) if not r.done]
        if 2 * len(keep) > len(self._rows) or self._once is not None:
            return
        index = torch.tensor(keep, device=self._device)
        self._cache.keep(index)
        self._next, self._cols = self._next[index], self._cols.rows(index)
        self._pos, self._doc = self._pos[index], self._doc[index]
        self._active = rows_of(self._active, keep)
        self._sampler = self._sampler.rows(keep)
        self._inserts = [self._inserts[i] for i in keep] if self._inserts else []
        self._media = [self._media[i] for i in keep] if self._media else []
        self._lengths = [self._lengths[i] for i in keep]
        self._rows = [self._rows[i] for i in keep]


def stream(
    base: LoadedBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | Sequence[Sampling] | None = None,
    routing: AdapterRouting | None = None,
    inserts: Sequence[Tensor | None] | None = None,
    media: Sequence[Sequence[Media]] | None = None,
) -> Iterator[list[Piece]]:
    """Continue a batch of prompts (token ids, as from Tokenizer.encode(text, bos=True)); yields the pieces of each step.

    sampling: one for all or one for each prompt (default: greedy, 128 tokens). The joined texts of a row's pieces equal the text of `generate`.
    Raises PromptTooLong or UserError before the first step.
    """
    return _run(Decoder(base, prompts, sampling, routing, inserts, media))


def _run(decoder: Decoder) -> Iterator[list[Piece]]:
    while decoder.live:
        yield decoder.step()


@dataclass
class _Sum:
    text: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[Top] = field(default_factory=list)
    finish: Finish = "length"


def generate(
    base: LoadedBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | Sequence[Sampling] | None = None,
    routing: AdapterRouting | None = None,
    *,
    batch: int = 32,
    inserts: Sequence[Tensor | None] | None = None,
    media: Sequence[Sequence[Media]] | None = None,
) -> list[Completion]:
    """Whole answers to prompts (token ids), in their order; at most `batch` are decoded at once, similar lengths together.

    Raises PromptTooLong or UserError before any work is done.
    """
    check_prompts(base, prompts, routing=routing)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    done: dict[int, Completion] = {}
    for start in range(0, len(order), batch):
        index = order[start : start + batch]
        each = (
            sampling if sampling is None or isinstance(sampling, Sampling) else [sampling[i] for i in index]
        )
        sums = [_Sum() for _ in index]
        vectors = None if inserts is None else [inserts[i] for i in index]
        seen = None if media is None else [media[i] for i in index]
        for pieces in stream(base, [prompts[i] for i in index], each, rows_of(routing, index), vectors, seen):
            for piece in pieces:
                s = sums[piece.row]
                s.text.append(piece.text)
                s.ids += piece.ids
                s.logprobs += piece.logprobs
                s.top += piece.top
                s.finish = piece.finish or s.finish
        for i, s in zip(index, sums, strict=True):
            done[i] = Completion(
                "".join(s.text), tuple(s.ids), s.finish, tuple(s.logprobs), len(prompts[i]), tuple(s.top)
            )
    return [done[i] for i in range(len(prompts))]
