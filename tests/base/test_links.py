"""How trunks meet: connectors and pairs, by themselves."""

import pytest
import torch

from onebase.base.config import BaseConfig
from onebase.base.link_modules import Connector, PairLink, link_module, shuffled
from onebase.base.links import ConnectorConfig, Link, PairConfig, connector_places, link_parameters
from onebase.errors import ConfigError
from onebase.modality.image.config import ImageCodecConfig
from onebase.modality.text.config import TextCodecConfig
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.model.config import AttnConfig, BlockConfig, FFConfig, NormConfig, TrunkConfig
from onebase.model.trunk import TrunkOutput


def link(how: str, **more: object) -> Link:
    return Link(src="image", dst="text", how=how, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "made",
    [
        link("embed", connector=ConnectorConfig(token=1)),
        link("embed", connector=ConnectorConfig(token=1, hidden=7, shuffle=2, norm=NormConfig(kind="layer"))),
        link("embed", connector=ConnectorConfig(token=1, hidden=7, bias=False, norm=NormConfig())),
        link("pair", pair=PairConfig(width=5)),
        link("pair", pair=PairConfig(project_src=False, dst_bias=True, shift=True)),
        link("pair", pair=PairConfig(project_dst=False, src_bias=True)),
        link("memory"),
    ],
)
def test_the_count_is_that_of_the_module(made: Link) -> None:
    module = link_module(made, 12, 8)
    found = 0 if module is None else sum(p.numel() for p in module.parameters())
    assert link_parameters(made, 12, 8) == found


def test_squares_of_neighbours_become_one_vector() -> None:
    side, by, D = 6, 3, 2
    x = torch.arange(side * side * D, dtype=torch.float32).view(1, side * side, D)
    grid = x.view(side, side, D)
    want = [
        torch.cat([grid[by * r + i, by * c + j] for i in range(by) for j in range(by)])
        for r in range(side // by)
        for c in range(side // by)
    ]
    torch.testing.assert_close(shuffled(x, by)[0], torch.stack(want))
    assert shuffled(x, 1) is x


def test_a_connector_reads_the_block_it_names_and_leaves_out_the_front() -> None:
    connector = Connector(ConnectorConfig(token=1, block=2, skip=1), 4, 6)
    assert connector.taps(5) == (2,)
    tap, hidden = torch.randn(2, 10, 4), torch.randn(2, 10, 4)
    torch.testing.assert_close(connector(TrunkOutput(hidden, {2: tap})), connector.first(tap[:, 1:]))
    last = Connector(ConnectorConfig(token=1), 4, 6)
    assert last.taps(5) == ()
    torch.testing.assert_close(last(TrunkOutput(hidden, {2: tap})), last.first(hidden))


def codec(**more: object) -> ImageCodecConfig:
    return ImageCodecConfig(kind="image", size=16, patch=4, **more)  # type: ignore[arg-type]


def test_how_many_vectors_an_image_has() -> None:
    assert connector_places(ConnectorConfig(token=1), codec()) == 17
    assert connector_places(ConnectorConfig(token=1, skip=3), codec(registers=2)) == 16
    assert connector_places(ConnectorConfig(token=1, shuffle=2), codec(class_token=False)) == 4
    for bad in (ConnectorConfig(token=1, shuffle=2), ConnectorConfig(token=1, skip=17)):
        with pytest.raises(ConfigError, match="a connector has skip"):
            connector_places(bad, codec())
    with pytest.raises(ConfigError, match="shuffle 3"):
        connector_places(ConnectorConfig(token=1, shuffle=3), codec(class_token=False))


def test_scores_are_cosines_and_chances_follow_the_shift() -> None:
    a, b = torch.randn(3, 12), torch.randn(4, 8)
    for shift in (False, True):
        pair = PairLink(PairConfig(width=5, shift=shift), 12, 8)
        with torch.no_grad():
            pair.scale.fill_(1.5)
            if pair.shift is not None:
                pair.shift.fill_(-2.0)
        assert pair.src is not None and pair.dst is not None
        cosines = torch.nn.functional.cosine_similarity(pair.src(a)[:, None], pair.dst(b)[None], dim=-1)
        scores = pair.scores(pair.placed(a, "src"), pair.placed(b, "dst"))
        torch.testing.assert_close(scores, cosines * 2.718281828**1.5 - 2.0 * shift)
        want = scores.sigmoid() if shift else scores.softmax(-1)
        torch.testing.assert_close(pair.probabilities(scores), want)


def test_texts_are_pooled_as_the_pair_says() -> None:
    hidden, live = torch.randn(2, 5, 8), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    for kind, at in (("last", [2, 4]), ("cls", [0, 0])):
        pair = PairLink(PairConfig(width=5, pool=EmbeddingConfig(pooling=kind)), 12, 8)  # type: ignore[arg-type]
        torch.testing.assert_close(pair.texts(hidden, live), pair.placed(hidden[[0, 1], at], "dst"))


def test_what_makes_no_link_is_refused() -> None:
    with pytest.raises(ConfigError, match="shuffle 0"):
        ConnectorConfig(token=1, shuffle=0)
    with pytest.raises(ConfigError, match="embed needs connector"):
        link("embed")
    with pytest.raises(ConfigError, match="embed needs connector"):
        link("memory", pair=PairConfig())
    attn = AttnConfig(heads=1, kv_heads=1, head_dim=8)
    trunk = TrunkConfig(width=8, blocks=(BlockConfig(attn=attn, ff=FFConfig(hidden=8)),))
    with pytest.raises(ConfigError, match="has no trunk 'image'"):
        BaseConfig(
            trunks={"text": trunk},
            codecs={"text": TextCodecConfig(vocab_size=9, context=8)},
            links=(link("pair", pair=PairConfig()),),
        )
