"""The reader of foreign configs: types, bounds, and errors that name key, value and what is accepted."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebase.errors import ConfigError
from onebase.formats.families import FAMILIES
from onebase.formats.reader import Reader

DATA: dict[str, Any] = {
    "width": 32,
    "eps": 1e-5,
    "theta": 10000,
    "act": "silu",
    "tied": True,
    "none": None,
    "rope": {"kind": "linear", "factor": 2},
    "list": [1, 2],
}


def reader(**more: Any) -> Reader:
    return Reader(DATA | more, "config.json")


def test_values_by_type() -> None:
    r = reader()
    assert r.get("width", int) == 32
    theta = r.get("theta", float)
    assert theta == 10000.0 and isinstance(theta, float)
    assert r.get("none", int, 5) == 5 and r.get("absent", int, 5) == 5
    assert r.get("tied", bool) is True and r.get("list", list) == [1, 2]
    assert r.one_of("act", {"silu": "swiglu"}) == "swiglu"
    assert r.size("width") == 32 and r.positive("eps") == 1e-5
    assert r.size_or_none("none", 3) is None and r.size_or_none("absent", 3) == 3
    assert r.positive_or_none("none", 3.0) is None and r.positive_or_none("absent", 3.0) == 3.0
    assert not r.has("none") and r.has("act")
    assert r.part("rope").get("factor", float) == 2.0


@pytest.mark.parametrize(
    ("ask", "named"),
    [
        (lambda r: r.get("absent", int), "'absent' is missing"),
        (lambda r: r.get("none", int), "'none' is missing"),
        (lambda r: r.get("width", str), "'width' is 32"),
        (lambda r: r.get("width", bool), "'width' is 32"),
        (lambda r: r.get("tied", int), "'tied' is True"),
        (lambda r: r.get("tied", float), "'tied' is True"),
        (lambda r: r.get("eps", int), "'eps' is 1e-05"),
        (lambda r: r.get("act", float), "'act' is 'silu'"),
        (lambda r: r.one_of("act", {"gelu": 1, "relu": 2}), "'act' is 'silu'"),
        (lambda r: r.must("act", "gelu", "gelu", "it matters"), "'act' is 'silu': it matters"),
        (lambda r: r.part("act"), "'act' is 'silu'"),
        (lambda r: r.part("rope").get("kind", int), "config.json: rope: 'kind' is 'linear'"),
        (lambda r: r.size("width", most=31), "'width' is 32"),
    ],
)
def test_what_is_wrong_is_named(ask: Callable[[Reader], object], named: str) -> None:
    with pytest.raises(ConfigError) as e:
        ask(reader())
    assert named in e.value.cause and e.value.cause.startswith("config.json")
    assert e.value.remedy


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ConfigError, match="theta"):
        reader(theta=value).get("theta", float)


@pytest.mark.parametrize("value", [0, -1, 2**63, 10**30])
def test_sizes_have_bounds(value: int) -> None:
    with pytest.raises(ConfigError, match="width"):
        reader(width=value).size("width")


@pytest.mark.parametrize("value", [0, -0.5])
def test_what_must_be_above_zero(value: float) -> None:
    with pytest.raises(ConfigError, match="eps"):
        reader(eps=value).positive("eps")


def test_a_missing_key_that_must_be_a_value_has_its_default() -> None:
    reader().must("absent", False, False, "")
    with pytest.raises(ConfigError, match="absent"):
        reader().must("absent", False, True, "it is on where nobody says")


def test_what_nobody_asked_for_is_known() -> None:
    r = reader()
    r.get("width", int)
    r.has("none")
    assert r.unread == ["act", "eps", "list", "rope", "theta", "tied"]


def test_errors_of_a_config_are_told_with_the_file() -> None:
    def wrong() -> int:
        raise ConfigError("heads is 0", "give 1")

    with pytest.raises(ConfigError, match="config.json: heads is 0"):
        reader().checked(wrong)


KEYS = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "sliding_window",
    "layer_types",
    "tie_word_embeddings",
    "n_embd",
    "n_head",
    "n_layer",
    "n_positions",
    "no_rope_layers",
    "query_pre_attn_scalar",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "text_config",
    "use_sliding_window",
    "activation_function",
]
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 40),
    st.integers(),
    st.floats(),
    st.sampled_from(["silu", "gelu", "default", "full_attention"]),
    st.lists(st.one_of(st.integers(0, 2), st.text(max_size=3)), max_size=4),
    st.dictionaries(
        st.sampled_from(["rope_type", "type", "factor", "rope_theta", "short_factor", "full_attention"]),
        st.one_of(st.floats(), st.sampled_from(["linear", "llama3", "longrope"]), st.lists(st.floats())),
        max_size=4,
    ),
)
GOOD = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
GOOD |= {"intermediate_size": 40, "vocab_size": 50, "max_position_embeddings": 64}


@given(st.sampled_from(FAMILIES), st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
def test_any_config_is_read_or_refused(family: Any, changes: dict[str, Any]) -> None:
    """Whatever stands in a config.json: a config of ours, or a ConfigError; and quickly."""
    r = Reader(json.loads(json.dumps(GOOD | changes)), "config.json")
    try:
        r.checked(lambda: family.read(r))
    except ConfigError as e:
        cause = e.cause
    else:
        return
    assert cause.startswith("config.json"), cause
