"""Images in a prompt: what a user calls, beside transformers' own processors and generation."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Idefics3Processor, LlavaProcessor

import onebase
from onebase import Base
from onebase.engine import image_prompts as seeing
from onebase.engine.decoder import generate
from onebase.engine.sampler import Sampling
from onebase.errors import DataError, UserError
from onebase.modality.image.pixels import lengthened, pixels
from tests.engine.pictures import (
    LLAVA,
    SMOLVLM,
    some_pictures,
    write_clip,
    write_idefics3,
    write_llava,
)
from tests.pretrained import onebase as command
from tests.test_readme import ROOT, blocks, lines

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def llava(tmp_path_factory: Any) -> tuple[Path, Any, Any, Base, list[Path]]:
    """Folder, model and processor of transformers, base, pictures."""
    folder = tmp_path_factory.mktemp("llava")
    model, words, pictures = write_llava(folder)
    processor = LlavaProcessor(
        pictures,
        words,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    return folder, model, processor, onebase.load(folder), some_pictures(folder / "pictures")


def inputs_there(llava: Any, prompt: str, paths: list[Path]) -> Any:
    images = [Image.open(p).convert("RGB") for p in paths]
    return llava[2](text=prompt, images=images or None, return_tensors="pt")


def there(llava: Any, prompt: str, paths: list[Path], tokens: int = 12) -> str:
    """What transformers generates, greedily."""
    _, model, processor, *_ = llava
    inputs = inputs_there(llava, prompt, paths)
    out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    text: str = processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text


@pytest.mark.parametrize("count", [1, 2])
def test_generate_with_images_says_what_transformers_says(llava: Any, count: int) -> None:
    base, paths = llava[3], llava[4][:count]
    prompt = "USER: what is it? ASSISTANT: " + " and ".join(["<image>"] * count)
    want = there(llava, prompt, paths)
    read = seeing.text_prompt(base.loaded, prompt, paths)
    assert read.ids == inputs_there(llava, prompt, paths)["input_ids"][0].tolist()
    assert base.generate(prompt, images=paths, max_tokens=12) == want
    assert "".join(base.stream(prompt, images=paths, max_tokens=12)) == want
    assert want != there(llava, prompt, llava[4][1 : count + 1])  # the picture counts


def test_chat_with_images_says_what_transformers_says(llava: Any) -> None:
    _, _, processor, base, paths = llava
    talk = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What?"}, {"type": "image", "image": paths[0]}],
        },
        {"role": "assistant", "content": "A house."},
        {"role": "user", "content": [{"type": "image", "image": str(paths[1])}]},
    ]
    plain = [
        {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A house."}]},
        {"role": "user", "content": [{"type": "image"}]},
    ]
    prompt = processor.apply_chat_template(plain, add_generation_prompt=True)
    want = there(llava, prompt, paths[:2])
    read = seeing.chat_prompt(base.loaded, talk)
    assert read.ids == inputs_there(llava, prompt, paths[:2])["input_ids"][0].tolist()
    assert base.chat(talk, max_tokens=12) == want
    assert "".join(base.stream(talk, max_tokens=12)) == want


def test_a_content_of_plain_text_reaches_a_template_that_knows_parts_alone(llava: Any) -> None:
    base = llava[3]
    want = there(llava, "USER: Hello ASSISTANT:", [])
    talk = [{"role": "user", "content": "Hello"}]
    ids = inputs_there(llava, "USER: Hello ASSISTANT:", [])["input_ids"][0].tolist()
    assert seeing.chat_prompt(base.loaded, talk).ids == ids
    assert base.chat([{"role": "user", "content": "Hello"}], max_tokens=12) == want


def test_a_template_in_its_older_file_is_read(llava: Any, tmp_path: Path) -> None:
    shutil.copytree(llava[0], tmp_path / "old")
    template = (tmp_path / "old" / "chat_template.jinja").read_text()
    (tmp_path / "old" / "chat_template.jinja").unlink()
    (tmp_path / "old" / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert onebase.load(tmp_path / "old").loaded.codec.template.source == template


def test_places_and_images_must_be_as_many(llava: Any) -> None:
    base, paths = llava[3], llava[4]
    with pytest.raises(UserError, match="2 images, but 1 image tokens"):
        base.generate("<image> what?", images=paths[:2])
    with pytest.raises(UserError, match="1 images, but 0 image tokens"):
        base.generate("what?", images=paths[:1])
    with pytest.raises(UserError, match="put them in"):
        next(base.stream([{"role": "user", "content": "a"}], images=paths[:1]))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image"},
        {"type": "image", "image": 3},
        {"type": "text"},
        {"type": "video", "video": "a"},
        "text",
    ],
)
def test_parts_that_are_neither_text_nor_image_are_refused(llava: Any, part: Any) -> None:
    with pytest.raises(DataError, match="has an unknown content part"):
        llava[3].chat([{"role": "user", "content": [part]}])


@pytest.mark.parametrize("messages", ["hi", [], None, ["hi"], [{"role": "user"}], [{"content": "hi"}]])
def test_malformed_conversations_are_refused(llava: Any, messages: Any) -> None:
    with pytest.raises(DataError):
        llava[3].chat(messages)


def test_no_text_of_a_user_becomes_a_place_of_an_image(llava: Any) -> None:
    base, paths = llava[3], llava[4]
    content = [{"type": "image", "image": paths[0]}, {"type": "text", "text": "what is <image>?"}]
    assert base.chat([{"role": "user", "content": content}], max_tokens=3) is not None
    assert base.generate("what is <image>?", max_tokens=3) is not None


def test_broken_pictures_are_named_before_anything_is_said(llava: Any, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(llava[4][0].read_bytes()[:60])
    with pytest.raises(DataError, match=r"cut\.png"):
        llava[3].generate("<image>", images=[tmp_path / "cut.png"])


def test_a_prompt_with_its_images_must_fit(llava: Any) -> None:
    with pytest.raises(UserError, match="the context of this base is 256 tokens"):
        llava[3].generate("<image>" * 16, images=[llava[4][0]] * 16)


@pytest.fixture(scope="module")
def idefics3(tmp_path_factory: Any) -> tuple[Path, Any, Any, Base, list[Path]]:
    """The same of the other family, pictures whole."""
    folder = tmp_path_factory.mktemp("idefics3")
    model, words, pictures = write_idefics3(folder)
    processor = Idefics3Processor(pictures, words, image_seq_len=4, chat_template=SMOLVLM)
    return folder, model, processor, onebase.load(folder), some_pictures(folder / "pictures")


def test_whole_pictures_between_tokens_of_their_own(idefics3: Any, tmp_path: Path) -> None:
    _, _, processor, base, paths = idefics3
    connector = base.config.links[0].connector
    assert connector is not None and (connector.before, connector.after) == ((99, 100), (99,))
    seen = processor.image_processor([[Image.open(p)] for p in paths], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels(paths, base.config.image), seen[:, 0], atol=TOLERANCE, rtol=0)
    want = there(idefics3, "what? <image> and <image>", paths[:2])
    assert base.generate("what? <image> and <image>", images=paths[:2], max_tokens=12) == want
    talk = [
        {"role": "user", "content": [{"type": "image", "image": paths[2]}, {"type": "text", "text": "What?"}]}
    ]
    plain = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    prompt = processor.apply_chat_template(plain, add_generation_prompt=True)
    prompt = prompt.removeprefix("<s>")  # the tokenizer begins every text
    said = there(idefics3, prompt, paths[2:])
    read = seeing.chat_prompt(base.loaded, talk)
    assert read.ids == inputs_there(idefics3, prompt, paths[2:])["input_ids"][0].tolist()
    assert base.chat(talk, max_tokens=12) == said
    base.save(tmp_path / "ours")
    base.export(tmp_path / "hf", format="hf")
    for folder in (tmp_path / "ours", tmp_path / "hf"):
        assert onebase.load(folder).chat(talk, max_tokens=12) == said
    again = type(processor.image_processor).from_pretrained(tmp_path / "hf")
    assert (again.size, again.max_image_size, again.do_image_splitting) == (
        processor.image_processor.size,
        processor.image_processor.max_image_size,
        False,
    )


@pytest.mark.parametrize("long", [16, 31, 364])
@pytest.mark.parametrize("size", [(7, 7), (640, 480), (480, 641), (1, 900), (33, 32)])
def test_the_longer_side_is_made_so_long(size: tuple[int, int], long: int) -> None:
    from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

    height, width = get_resize_output_image_size(np.zeros((3, size[1], size[0])), long)
    assert lengthened(size, long) == (width, height)


def test_images_survive_saving_and_export(llava: Any, tmp_path: Path) -> None:
    base, paths = llava[3], llava[4]
    want = base.generate("<image> what?", images=paths[:1], max_tokens=12)
    base.save(tmp_path / "ours")
    base.export(tmp_path / "hf", format="hf")
    for folder in (tmp_path / "ours", tmp_path / "hf"):
        assert onebase.load(folder).generate("<image> what?", images=paths[:1], max_tokens=12) == want
    assert base.record.get("imported.model_type") == "llava"


@pytest.mark.parametrize("kind", ["llava", "idefics3"])
def test_the_processor_of_an_exported_base_prepares_the_same(kind: str, request: Any, tmp_path: Path) -> None:
    _, _, processor, base, paths = request.getfixturevalue(kind)
    base.export(tmp_path / "hf", format="hf")
    again = AutoProcessor.from_pretrained(tmp_path / "hf")
    images = [Image.open(paths[1]).convert("RGB")]
    want, found = (p(text="a <image> b", images=images, return_tensors="pt") for p in (processor, again))
    assert type(again) is type(processor)
    assert found["input_ids"].tolist() == want["input_ids"].tolist()
    torch.testing.assert_close(found["pixel_values"], want["pixel_values"])


def test_prompts_with_and_without_images_share_a_batch(llava: Any) -> None:
    base, paths = llava[3], llava[4]
    prompts = [
        seeing.text_prompt(base.loaded, "<image> and <image> say what?", paths[:2]),
        seeing.Prompt(base.tokenizer.encode("no image", bos=True), None),
        seeing.text_prompt(base.loaded, "what? <image>", paths[2:3]),
    ]
    together = generate(
        base.loaded,
        [p.ids for p in prompts],
        [Sampling(max_tokens=n) for n in (9, 1, 12)],
        inserts=[p.inserts for p in prompts],
        batch=2,
    )
    for p, answer, n in zip(prompts, together, (9, 1, 12), strict=True):
        alone = generate(base.loaded, [p.ids], Sampling(max_tokens=n), inserts=[p.inserts])[0]
        assert answer.ids == alone.ids


def test_an_adapter_of_text_serves_prompts_with_images(idefics3: Any) -> None:
    base, paths = idefics3[3], idefics3[4]
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    adapter = base.adapt([{"messages": talk}] * 4, task="chat", method="lora", epochs=20)
    on = base.with_adapter(adapter)
    asked = [{"role": "user", "content": [{"type": "image", "image": paths[0]}]}]
    assert on.chat(asked, max_tokens=8) == on.merged().chat(asked, max_tokens=8)
    assert on.chat(asked, max_tokens=8) != base.chat(asked, max_tokens=8)


def test_a_template_that_knows_no_parts_refuses_images(llava: Any, tmp_path: Path) -> None:
    shutil.copytree(llava[0], tmp_path / "other")
    plain = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (tmp_path / "other" / "chat_template.jinja").write_text(plain)
    base = onebase.load(tmp_path / "other")
    image = {"type": "image", "image": llava[4][0]}
    with pytest.raises(UserError, match="does not support images"):
        base.chat([{"role": "user", "content": [image]}])
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    told = seeing.chat_prompt(base.loaded, [{"role": "user", "content": parts}])
    assert base.tokenizer.decode(told.ids) == "ab"


def test_the_manual_is_run_as_it_stands(llava: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "bases" / "clip")
    (tmp_path / "bases" / "llava").symlink_to(llava[0])
    rows = [{"image": str(p), "text": f"house {i}"} for i, p in enumerate(some_pictures(tmp_path / "photos"))]
    for name in ("captions", "more"):
        (tmp_path / "photos" / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.chdir(tmp_path)
    manual = (ROOT / "docs" / "images_and_text.md").read_text(encoding="utf-8")
    for words in lines(manual):
        said = command(*words[1:], "--device", "cpu")
        assert said.status == 0 and said.out.strip(), (words, said.err)
    for block in blocks(manual, "python"):
        exec(
            compile(block, "docs/images_and_text.md", "exec"), {}
        )  # what the manual shows, nothing from outside
