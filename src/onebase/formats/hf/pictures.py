"""Reads image preprocessing from `preprocessor_config.json` strictly, and writes it."""

from dataclasses import replace
from pathlib import Path

from onebase.formats.family import Tree
from onebase.formats.hf.files import read_json
from onebase.formats.reader import ConfigReader
from onebase.modality.image.config import Filter, ImageCodecConfig, PixelsConfig

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
RESAMPLE: dict[int, Filter] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
"""Pillow's numbers of filters."""
MAX_SIDE = 2**13
"""Maximum pixels of a side: a hostile config could fill the memory."""
KNOWN = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
LACKED = ("crop_pct", "size_divisor", "pad_size", "size_divisibility")


def processor(folder: Path) -> ConfigReader | None:
    """A folder's image preprocessing: from its own file, or from that of the whole processor (transformers 5); None without either."""
    for name in (PREPROCESSOR, PROCESSOR):
        if (folder / name).is_file():
            tree = read_json(folder / name)
            if name == PREPROCESSOR:
                return ConfigReader(tree, str(folder / name))
            whole = ConfigReader(tree, str(folder / name))
            return whole.part("image_processor") if whole.has("image_processor") else None
    return None


def read_pixels(r: ConfigReader | None, codec: ImageCodecConfig) -> PixelsConfig:
    """The steps in the file; missing keys have the values of `codec.pixels`, the family's defaults. Raises ConfigError for unsupported ones."""
    return shortest(codec.pixels if r is None else _read(r, codec), codec.size)


def shortest(pixels: PixelsConfig, size: int) -> PixelsConfig:
    """The same steps without numbers that follow from others: a canonical form."""
    side = pixels.size or size
    return replace(
        pixels,
        size=None if side == size else side,
        edge=None if pixels.edge in (None, side) else pixels.edge,
        mean=_one(pixels.mean),
        std=_one(pixels.std),
    )


def _one(values: tuple[float, ...]) -> tuple[float, ...]:
    return values[:1] if len(set(values)) == 1 else values


def _read(r: ConfigReader, codec: ImageCodecConfig) -> PixelsConfig:
    if r.has("max_image_size"):
        return _whole(r, codec)
    own = codec.pixels
    side = own.size or codec.size
    for key in sorted(r.data):
        if key.startswith("do_") and key not in KNOWN:
            r.must(key, False, False, "this preprocessing step is not supported")
        if key in LACKED:
            r.must(key, None, None, "this preprocessing step is not supported")
    r.get("do_convert_rgb", bool, True)  # images are always converted to the channels of the stem
    r.must("do_resize", True, True, "all images must have the same size")
    r.must("do_rescale", True, True, "values must be from 0 to 1")
    if abs(r.get("rescale_factor", float, 1 / 255) * 255 - 1) > 1e-6:
        raise r.refuse("rescale_factor", "1/255")
    edge, square = _size(r, own.edge or side, own.resize == "stretch")
    crops = r.get("do_center_crop", bool, own.resize == "crop")
    if not crops and not square:
        raise r.refuse("do_center_crop", "true if size is a shortest edge, or a size of height and width")
    if r.has("resample"):
        number = r.get("resample", int)
        if number not in RESAMPLE:
            raise r.refuse(
                "resample", f"one of Pillow's {', '.join(f'{n} ({x})' for n, x in RESAMPLE.items())}"
            )
    else:
        number = next(n for n, x in RESAMPLE.items() if x == own.filter)
    normal = r.get("do_normalize", bool, True)
    return PixelsConfig(
        resize="stretch" if square else "crop",
        edge=edge,
        size=_crop(r, side) if crops else edge,
        filter=RESAMPLE[number],
        mean=_numbers(r, "image_mean", own.mean, codec.channels) if normal else (0.0,),
        std=_numbers(r, "image_std", own.std, codec.channels) if normal else (1.0,),
    )


def _whole(r: ConfigReader, codec: ImageCodecConfig) -> PixelsConfig:
    """The whole image of processors that add tiles of large images (Idefics3); tiles are not used."""
    for key in sorted(r.data):
        if key.startswith("do_") and key not in (*KNOWN, "do_image_splitting", "do_pad"):
            r.must(key, False, False, "this preprocessing step is not supported")
    for key in ("do_resize", "do_rescale", "do_normalize"):
        r.must(key, True, True, "all images must have the same size")
    if abs(r.get("rescale_factor", float, 1 / 255) * 255 - 1) > 1e-6:
        raise r.refuse("rescale_factor", "1/255")
    edge = r.part("max_image_size").size("longest_edge")
    if edge != codec.size:
        raise r.refuse("max_image_size", f"a longest_edge of {codec.size}, the image_size of the model")
    number = r.get("resample", int, 1)
    if number not in RESAMPLE:
        raise r.refuse("resample", "one of Pillow's numbers")
    return PixelsConfig(
        filter=RESAMPLE[number],
        mean=_numbers(r, "image_mean", (0.5,), codec.channels),
        std=_numbers(r, "image_std", (0.5,), codec.channels),
        long=r.part("size").size("longest_edge", most=4096),
    )


def _size(r: ConfigReader, default: int, square: bool) -> tuple[int, bool]:
    """The edge, and whether both sides get it (otherwise the shorter one). A single number has the family's default meaning."""
    if not r.has("size"):
        return default, square
    if not isinstance(r.data["size"], dict):
        return r.size("size", most=MAX_SIDE), square
    size = r.part("size")
    keys = {key for key in size.data if size.data[key] is not None}
    if keys == {"shortest_edge"}:
        return size.size("shortest_edge", most=MAX_SIDE), False
    if keys == {"height", "width"} and size.data["height"] == size.data["width"]:
        return size.size("height", most=MAX_SIDE), True
    raise r.refuse("size", "equal height and width, or shortest_edge alone")


def _crop(r: ConfigReader, default: int) -> int:
    if not r.has("crop_size"):
        return default
    if not isinstance(r.data["crop_size"], dict):
        return r.size("crop_size", most=MAX_SIDE)
    crop = r.part("crop_size")
    if crop.get("height", int) != crop.get("width", int):
        raise r.refuse("crop_size", "equal height and width")
    return crop.size("height", most=MAX_SIDE)


def _numbers(r: ConfigReader, key: str, own: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if not r.has(key):
        return own
    value = r.data[key]
    values = value if isinstance(value, list) else [value]
    if len(values) not in (1, channels):
        raise r.refuse(key, f"{channels} numbers, or one for all channels")
    numbers = tuple(ConfigReader({key: x}, r.where).get(key, float) for x in values)
    if key == "image_std" and 0 in numbers:
        raise r.refuse(key, "numbers other than 0")
    return numbers


def processor_tree(codec: ImageCodecConfig) -> Tree:
    """`preprocessor_config.json` of a codec: `read_pixels` reads the same steps from it."""
    how, side = codec.pixels, codec.side
    if how.long is not None:
        return _whole_tree(codec, how.long)
    edge = how.edge or side
    crops = how.resize == "crop" or edge != side
    square = how.resize == "stretch"
    tree = {
        # Both classes support all of these steps; they differ only in the defaults of missing keys.
        "image_processor_type": "CLIPImageProcessor" if crops else "ViTImageProcessor",
        "do_convert_rgb": codec.channels == 3,
        "do_resize": True,
        "size": {"height": edge, "width": edge} if square else {"shortest_edge": edge},
        "resample": next(n for n, name in RESAMPLE.items() if name == how.filter),
        "do_center_crop": crops,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [*(how.mean if len(how.mean) > 1 else how.mean * codec.channels)],
        "image_std": [*(how.std if len(how.std) > 1 else how.std * codec.channels)],
    }
    return tree | ({"crop_size": {"height": side, "width": side}} if crops else {})


def _whole_tree(codec: ImageCodecConfig, long: int) -> Tree:
    """The keys that `_whole` reads. Tiles are off, so that an image is one there too."""
    how = codec.pixels
    return {
        "image_processor_type": "Idefics3ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": long},
        "resample": next(n for n, name in RESAMPLE.items() if name == how.filter),
        "do_image_splitting": False,
        "max_image_size": {"longest_edge": codec.side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [*(how.mean if len(how.mean) > 1 else how.mean * codec.channels)],
        "image_std": [*(how.std if len(how.std) > 1 else how.std * codec.channels)],
        "do_pad": True,
    }
