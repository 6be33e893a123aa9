"""Vector drawings, as TU-Berlin and ShoeV2 publish their sketches, drawn as pixels."""

import functools
import io
from pathlib import Path

import resvg_py
from PIL import Image

from data_prep.preparing import Item, PreparationError

DRAWN_BY = f"resvg_py {resvg_py.__version__}"


def drawn(svg: Path, size: int) -> bytes:
    """The drawing on white as a grey PNG, anti-aliased, its longer side `size` pixels.

    Raises ValueError for what is no svg, and for one that draws nothing.
    """
    text = svg.read_text(encoding="utf-8-sig")
    data = resvg_py.svg_to_bytes(svg_string=text, background="#ffffff", width=size, height=size,
                                 skip_system_fonts=True)
    with Image.open(io.BytesIO(data)) as image:
        grey = image.convert("L")
    if grey.getextrema()[0] == 255:
        raise ValueError("this svg draws nothing")
    content = io.BytesIO()
    grey.save(content, "PNG")
    return content.getvalue()


def check_size(size: int) -> None:
    """PreparationError for a side that no sketch is drawn with."""
    if not 16 <= size <= 4096:
        raise PreparationError(f"--size {size}: choose 16 to 4096 pixels")


def is_drawing(file: Path) -> bool:
    """Whether a file is an svg by its name, and not hidden."""
    return file.suffix.lower() == ".svg" and not file.name.startswith(".") and file.is_file()


def drawings_by_class(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """class -> its svg files in order of name; and the other files."""
    found, strangers = {}, [f for f in sorted(folder.iterdir()) if not f.is_dir()]
    for of_class in sorted(f for f in folder.iterdir() if f.is_dir()):
        files = sorted(of_class.iterdir())
        found[of_class.name] = [f for f in files if is_drawing(f)]
        strangers += [f for f in files if not is_drawing(f)]
    return found, strangers


def as_item(item: Item, size: int) -> Item:
    """A sketch that is an svg becomes one that will be drawn, as `<its stem>.png`."""
    if item.source.suffix.lower() != ".svg":
        return item
    return item._replace(place=f"{item.place[:-len('.svg')]}.png",
                         source=functools.partial(drawn, item.source, size))
