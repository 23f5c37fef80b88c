"""A base as a module: trunks, codec modules and links, composed by its config. B batch, T time, D width, V vocabulary."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.base.config import BaseConfig
from onebase.base.link_modules import Connector, PairLink, link_module
from onebase.base.patches import Patches, grouped, with_patches
from onebase.base.virtual_tokens import acting, fill_cache, shifted, with_soft_prompts
from onebase.errors import ConfigError, UserError
from onebase.modality.audio.modules import AudioModule
from onebase.modality.image.modules import ImageModule
from onebase.modality.kinds import CODECS
from onebase.modality.latents.modules import LatentModule
from onebase.modality.patches.modules import PatchModule
from onebase.modality.text.modules import TextModule
from onebase.model.cache import Cache
from onebase.model.config import StorageConfig
from onebase.model.cross import Memory
from onebase.model.mask import Cols, Mask, SameDocument, prefix
from onebase.model.proj import AdapterRouting, Proj
from onebase.model.trunk import Trunk, TrunkOutput, init_trunk

R = TypeVar("R")


class BaseModel(nn.Module):
    """Trunks and codec modules. Parameters keep their stored dtype; `compute_dtype` is the dtype of activations."""

    def __init__(self, cfg: BaseConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.compute_dtype = torch.float32
        self.compiled = False  # set by train.parallel: the loss may then compile its part too
        self.trunks = nn.ModuleDict({name: Trunk(name, t) for name, t in cfg.trunks.items()})
        self.codecs = nn.ModuleDict(
            {
                name: CODECS[c.kind].module(c, cfg.trunks[cfg.trunk_of(name)].width)
                for name, c in cfg.codecs.items()
            }
        )
        links = {x.name: link_module(x, cfg.trunks[x.src].width, cfg.trunks[x.dst].width) for x in cfg.links}
        self.links = nn.ModuleDict({name: m for name, m in links.items() if m is not None})
        if cfg.storage is not None:
            self._keep_in(cfg.storage, take=False)
        self.heads = nn.ModuleDict()  # heads of adapters on the hidden states; empty in a plain base
        self.virtual = nn.ModuleDict()  # virtual tokens of adapters before the first token; empty too

    @property
    def trunk(self) -> Trunk:
        """The text trunk."""
        trunk = self.trunks["text"]
        assert isinstance(trunk, Trunk)
        return trunk

    @property
    def text(self) -> TextModule:
        """The text codec module. Raises ConfigError when this base reads no text."""
        module = self.codecs[self.cfg.text.kind]
        assert isinstance(module, TextModule)
        return module

    @property
    def image(self) -> ImageModule:
        """The image codec module. Raises ConfigError when this base reads no images."""
        module = self.codecs[self.cfg.image.kind]
        assert isinstance(module, ImageModule)
        return module

    @property
    def audio(self) -> AudioModule:
        """The audio codec module. Raises ConfigError when this base reads no audio."""
        module = self.codecs[self.cfg.audio.kind]
        assert isinstance(module, AudioModule)
        return module

    @property
    def patches(self) -> dict[str, PatchModule]:
        """The learned ends of the modalities of patches, by codec."""
        return {name: m for name, m in self.codecs.items() if isinstance(m, PatchModule)}

    @property
    def patch_groups(self) -> dict[str, int]:
        """The number of the feed-forward group of each codec's patches."""
        names = self.trunk.cfg.groups
        return {name: names.index(m.cfg.group) if names else 0 for name, m in self.patches.items()}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def reset(self, seed: int) -> None:
        """Initialise all weights from `seed` (on the CPU, so that a seed gives the same weights on every device)."""
        assert self.cfg.storage is None, "a quantized base cannot be initialised"
        generator = torch.Generator().manual_seed(seed)
        for name in sorted(self.trunks):
            trunk = self.trunks[name]
            assert isinstance(trunk, Trunk)
            init_trunk(trunk, generator)
        for name in sorted(self.codecs):
            codec = self.codecs[name]
            assert isinstance(codec, TextModule | ImageModule | AudioModule | PatchModule | LatentModule)
            codec.reset(generator)
        for name in sorted(self.links):
            link = self.links[name]
            if isinstance(link, PairLink):
                link.reset(generator)
                continue
            for p in link.parameters():
                if p.ndim == 2:
                    nn.init.normal_(p, 0.0, 0.02, generator)
                else:
                    nn.init.zeros_(p)

    def sites(self) -> dict[str, Proj]:
        """Every projection of every trunk by site name."""
        return {m.site: m for m in self.modules() if isinstance(m, Proj)}

    def untie(self) -> None:
        """Give the text head a matrix of its own, equal to the stem's (does nothing when it has one); changes the config."""
        self.text.untie()
        self.cfg = replace(self.cfg, codecs=self.cfg.codecs | {"text": self.text.cfg})

    def quantise(self, storage: StorageConfig) -> None:
        """Quantize the matrices of all projections and of the head; changes config and weights.

        Raises ConfigError when the base is already quantized, or when a matrix does not divide into groups.
        """
        if self.cfg.storage is not None:
            raise ConfigError(
                f"this base is already quantized to {self.cfg.storage.bits} bits",
                "start from the base it was quantized from",
            )
        self._keep_in(storage, take=True)
        self.cfg = replace(self.cfg, storage=storage)

    def _keep_in(self, storage: StorageConfig, *, take: bool) -> None:
        for proj in self.sites().values():
            proj.keep_in(storage, take=take)
        for codec in self.codecs.values():
            assert isinstance(codec, TextModule | ImageModule | AudioModule | PatchModule | LatentModule)
            codec.keep_in(storage, take=take)

    def new_cache(self, batch: int, slots: int, routing: AdapterRouting | None = None) -> Cache:
        """An empty key-value cache for the text trunk, for `slots` tokens per row and the virtual tokens before them."""
        slots += sum(max(front.counts_B, default=0) for front in acting(self.virtual, routing, batch))
        return Cache(self.trunk.cfg, batch, slots, self.device, self.compute_dtype)

    def hidden(
        self,
        ids_BT: Tensor,
        cols: Cols | None = None,
        mask: Mask | None = None,
        *,
        cache: Cache | None = None,
        routing: AdapterRouting | None = None,
        memory: Memory | None = None,
        inserts: Tensor | None = None,
        media: Mapping[str, Patches] | None = None,
        types_BT: Tensor | None = None,
        taps: Sequence[int] = (),
        impl: str = "auto",
    ) -> TrunkOutput:
        """Hidden states of text; without columns every row is one document from position 0.

        memory: input of cross-attention. inserts [N, D]: vectors that replace the connector's placeholder tokens, in order. media: patches by
        codec, at the places that they name. types: token types (0 and 1 in a pair of texts); None: all 0. The virtual tokens of an active adapter (`virtual_counts`) precede the first
        token: positions of the row's tokens start after them, and a cache needs that many more slots; a row is then one document.
        Raises UserError where tokens and virtual tokens do not fit in the context.
        """
        if cols is None:
            cols = Cols.simple(ids_BT.shape[0], ids_BT.shape[1], ids_BT.device)
        before_B = self.virtual_counts(routing, len(ids_BT))
        first = cache is None or cache.cols is None
        if has_virtual := any(before_B):
            cols = shifted(cols, before_B, self.cfg.text.context if first else None)
        x_BTD = self.text.embed(ids_BT, cols.pos, self.compute_dtype, routing, cols.doc, types_BT)
        if inserts is not None:
            x_BTD = self.inserted(x_BTD, ids_BT, inserts)
            cols, mask = self._images_whole(ids_BT, cols, mask)
        if self.patches:
            x_BTD = with_patches(self.patches, x_BTD, media or {})
            cols = grouped(cols, media or {}, self.patch_groups)
        if has_virtual and first:
            prefixes, softs = acting(self.virtual, routing, len(ids_BT))
            if softs.found:
                x_BTD, cols = with_soft_prompts(x_BTD, cols, softs, prefixes.counts_B, self.text.stem)
            if prefixes.found:
                cache = self.new_cache(len(ids_BT), x_BTD.shape[1], routing) if cache is None else cache
                fill_cache(cache, prefixes, x_BTD.dtype, x_BTD.device)
        out: TrunkOutput = self.trunk(
            x_BTD, cols, mask, cache=cache, routing=routing, memory=memory, taps=taps, impl=impl
        )
        if (over := x_BTD.shape[1] - ids_BT.shape[1]) == 0:
            return out
        return TrunkOutput(out.hidden[:, over:], {i: t_BTD[:, over:] for i, t_BTD in out.taps.items()})

    def virtual_counts(self, routing: AdapterRouting | None, batch: int) -> list[int]:
        """Number of virtual tokens of active adapters before each row of a batch (soft prompts, prefixes)."""
        prefixes, softs = acting(self.virtual, routing, batch)
        return [a + b for a, b in zip(prefixes.counts_B, softs.counts_B, strict=True)]

    def inserted(self, x_BTD: Tensor, ids_BT: Tensor, inserts_ND: Tensor) -> Tensor:
        """`x` with the connector's placeholder tokens replaced by the vectors. Raises UserError when their numbers differ."""
        link = self.cfg.link("embed")
        assert link is not None and link.connector is not None
        places_BT = ids_BT == link.connector.token
        if int(places_BT.sum()) != len(inserts_ND):
            raise UserError(
                f"{len(inserts_ND)} {link.src} vectors for {int(places_BT.sum())} placeholder tokens in the text",
                "give one placeholder (or the codec's expansion of it) per image",
            )
        return x_BTD.masked_scatter(places_BT[..., None], inserts_ND.to(x_BTD.dtype))

    def _images_whole(self, ids_BT: Tensor, cols: Cols, mask: Mask | None) -> tuple[Cols, Mask | None]:
        """Columns and mask with which the tokens of one image attend to each other, where the connector has `both` and no mask is given.
        Adjacent placeholders belong to one image."""
        link = self.cfg.link("embed")
        assert link is not None and link.connector is not None
        if mask is not None or not link.connector.both:
            return cols, mask
        here_BT = ids_BT == link.connector.token
        begins_BT = here_BT & ~F.pad(here_BT, (1, 0))[:, :-1]
        block_BT = torch.where(here_BT, begins_BT.cumsum(1) - 1, -1)
        return replace(cols, block=block_BT, single=False), prefix() & SameDocument()

    def states(
        self,
        kind: Literal["image", "audio"],
        data: Tensor,
        *,
        routing: AdapterRouting | None = None,
        taps: Sequence[int] = (),
    ) -> TrunkOutput:
        """Hidden states of images (pixels [B, C, H, W]) or of audio (log-mel frames [B, M, F])."""
        codec = self.image if kind == "image" else self.audio
        x_BTD, cols = codec.embed(data, self.compute_dtype)
        out: TrunkOutput = self.trunks[kind](x_BTD, cols, routing=routing, taps=taps)
        return out

    def link(self, how: Literal["embed", "pair"]) -> nn.Module:
        """The module of the link of a kind. Raises UserError where this base has none."""
        link = self.cfg.link(how)
        if link is None:
            what = (
                "takes no images in a prompt"
                if how == "embed"
                else "has no shared embedding space of two modalities"
            )
            raise UserError(f"this base {what}", "use one that does (docs/images_and_text.md)")
        return self.links[link.name]

    def seen(self, pixels_BCHW: Tensor, routing: AdapterRouting | None = None) -> Tensor:
        """The `inserts` of `hidden` for these images, [N, E], the same number of vectors per image. Raises UserError where this base takes
        no images in a prompt."""
        connector = self.link("embed")
        assert isinstance(connector, Connector)
        taps = connector.taps(len(self.cfg.trunks["image"].blocks))
        out: Tensor = connector(self.states("image", pixels_BCHW, routing=routing, taps=taps))
        return out.flatten(0, 1)

    def logits(self, ids_BT: Tensor, routing: AdapterRouting | None = None) -> Tensor:
        """fp32 logits [B, T, V] of complete rows."""
        return self.text.logits(self.hidden(ids_BT, routing=routing).hidden, routing)

    def forward(self, work: Callable[["BaseModel"], R]) -> R:
        """Run `work` on this model from inside a module call.

        Sharded training gathers parameters around `forward`. So everything that uses weights outside a trunk (the loss reads the
        head's matrix) must run inside it.
        """
        return work(self)

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters in the groups that decide their optimizer: matrix, embed, head, other.

        An adapter's token rows are in the group of embedding or head, and virtual tokens in that of the embedding.
        """
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {
            "matrix": [],
            "embed": [],
            "head": [],
            "other": [],
        }
        for name, p in self.named_parameters():
            if not p.requires_grad:
                continue
            if name.endswith((".stem.weight", ".stem.few.rows_KD", ".stem_KD")) or name.startswith(
                "virtual."
            ):
                groups["embed"].append((name, p))
            elif name.endswith((".head.weight", ".head_KD")):
                groups["head"].append((name, p))
            elif (
                p.ndim == 2
                and name.startswith("trunks.")
                and not name.endswith(("lambdas", "relative"))
                and ".deltas." not in name
            ):
                groups["matrix"].append((name, p))
            else:
                groups["other"].append((name, p))
        return groups
