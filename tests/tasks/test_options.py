"""Options of adaptation: each method's are its own, users write them flat, and what was hashed of them before stays what it was."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from onebase.config import config
from onebase.config_plain import digest
from onebase.errors import ConfigError, UserError
from onebase.methods import table as methods
from onebase.methods.lora_config import LoraOptions
from onebase.methods.method import Method, Peft, option
from onebase.tasks.options import (
    COMMON,
    TASK_OPTIONS,
    AdaptOptions,
    as_before,
    explained,
    flat,
    read_options,
    those_of,
)
from tests.pretrained import onebase


def test_they_are_read_flat_and_kept_apart() -> None:
    found = read_options({"rank": 4, "epochs": 2, "sites": ("q",)}, "complete", "lora")
    assert isinstance(found.of_method, LoraOptions) and (
        found.of_method.rank,
        found.of_method.sites,
        found.epochs,
    ) == (
        4,
        ("q",),
        2,
    )
    assert flat(found)["rank"] == 4 and "virtual" not in flat(found) and "of_method" not in flat(found)
    assert not fields(read_options({}, "complete", "full").of_method)


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("lora", {"virtual": 4}, "method lora has no option 'virtual': soft, prefix have it"),
        ("head", {"rank": 4}, "method head has no option 'rank': lora has it"),
        ("lora", {"rnk": 4}, "unknown key 'rnk'.*did you mean 'rank'"),
        ("lora", {"epoch": 4}, "unknown key 'epoch'.*did you mean 'epochs'"),
        ("lora", {"rank": 0}, "adapt options: LoRA rank is 0"),
        ("lora", {"rank": "many"}, "'rank' is 'many'"),
        ("lora", {"epochs": 0}, "adapt options: 'epochs' is 0"),
        ("soft", {"virtual": 0}, "'virtual' is 0"),
        ("lora", {"of_task": 3}, "unknown key 'of_task'"),
        ("lora", {"temperature": 1.0}, "task complete has no option 'temperature': embed has it"),
        ("lora", {"pooling": "first"}, "task complete has no option 'pooling': classify, regress"),
        ("rola", {}, "method 'rola' is not known.*lora"),
    ],
)
def test_what_is_wrong_is_said(method: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"(?s){said}"):
        read_options(given, "complete", method)


def test_what_was_hashed_before_methods_had_their_own_is_hashed_still() -> None:
    """Of the commit before: a state of learning that it wrote goes on."""
    wanted = {
        "4815afbcb447bd8f2df7f11fc94c7c59b34243492040fe653d8fbb041000a221": {"rank": 4, "epochs": 2},
        "0506077f8d5d6ce03c377dd75a1d12337df0871a481f3127e04717273d0d227c": {},
    }
    for found, given in wanted.items():
        assert digest(as_before(read_options(given, "complete", "lora"))) == found


def test_a_record_from_before_gives_each_method_its_own() -> None:
    recorded = as_before(read_options({"rank": 4}, "complete", "lora"))
    assert {"rank", "virtual", "prompt"} <= set(recorded)
    assert read_options(those_of(recorded, "classify", "head"), "classify", "head") == read_options(
        {}, "classify", "head"
    )
    assert read_options(those_of(recorded, "complete", "lora"), "complete", "lora").of_method.rank == 4


def test_the_command_lists_them(tmp_path: Path) -> None:
    for method in methods.OURS:
        said = onebase("adapt", tmp_path, "--task", "complete", "--method", method, "-o", "help")
        assert said.status == 0 and said.out.strip() == explained("complete", method)
        for name in (*methods.METHODS[method].option_names, *(f.name for f in COMMON)):
            assert f"\n  {name} (" in said.out, name
    assert all(f.metadata["about"] for m in methods.METHODS.values() for f in fields(m.options))
    assert all(f.metadata["about"] for c in TASK_OPTIONS.values() for f in fields(c))
    assert "not known" in onebase("adapt", tmp_path, "--method", "rola", "-o", "help").err


def test_names_that_are_taken_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @config
    class Taken:
        batch_size: int = option(1, "another's")

    monkeypatch.setitem(methods.METHODS, "mine", Method(name="mine", options=Taken))
    with pytest.raises(
        ConfigError, match="the option 'batch_size' of a method is already an option of every task"
    ):
        read_options({}, "complete", "mine")
    lora = methods.METHODS["lora"].peft
    assert isinstance(lora, Peft)
    with pytest.raises(ConfigError, match="two methods have the PEFT type LORA: lora and other"):
        methods.register(Method(name="other", peft=replace(lora, kind="LORA")))
    assert "other" not in methods.METHODS


def test_every_method_says_how_or_why_not() -> None:
    """A way, or one sentence that ends a message: neither a capital nor a full stop."""
    for m in methods.METHODS.values():
        for how in (m.merge, m.combine, m.peft):
            assert not isinstance(how, str) or (len(how) > 15 and not how.endswith("."))
    assert AdaptOptions().of_method is None
