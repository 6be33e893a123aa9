"""FashionIQ: captions, splits and a picture folder to the layout of SPRC's readme.

    python -m data_prep.fashioniq --raw FOLDER --out DATA [--images FOLDER] [--download-pictures]

FOLDER holds, packed or unpacked,
- captions/cap.<type>.<part>.json and image_splits/split.<type>.<part>.json, for the types dress,
  shirt, toptee and the parts train, val, test: GitHub's XiaoxiaoGuo/fashion-iq;
- image_url/asin2url.<type>.txt, a name, a tab and a URL a line: GitHub's
  hongwang600/fashion-iq-metadata. They are needed for --download-pictures only. The pictures in
  image_url/broken_links/ of that repository are taken where there is no other;
- the pictures <name>.jpg or .png in images/, resized_image/ or resized_images/, or in a folder a
  type, or in the folder that --images names.
Archives are those whose names begin with fashion-iq, fashioniq, captions, image_splits, image_url,
images, resized_image, dress, shirt or toptee.

There is no official archive of the pictures, and many URLs are dead. --download-pictures fetches
what is missing into images/ (or --images), what failed and why is in fashioniq_downloads.json; a
second call tries these again. The result is DATA/fashionIQ_dataset/{captions,image_splits,images}.
The nine split files hold 77,683 names, 74,381 of them different; how many of these have a URL and
a picture is printed and in dataset.json.

Sources: Wu et al., The Fashion IQ Dataset (2021) and the readmes of both repositories; that
broken_links holds pictures whose URL is dead: issue 4 of GitHub's BrandonHanx/CompFashion.
"""

import functools
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.command import parser
from data_prep.composed import (
    Found,
    annotations,
    chosen,
    found_in,
    pictures,
    prepare_composed,
    read_parts,
    read_rows,
)
from data_prep.listed import Raw, add_choice, add_missing, is_there, not_found, run
from data_prep.picture_urls import download
from data_prep.preparing import Item, PreparationError

NAME, FOLDER = "fashioniq", "fashionIQ_dataset"
TYPES, PARTS = ("dress", "shirt", "toptee"), ("train", "val", "test")
ARCHIVES = ("fashion-iq", "fashioniq", "captions", "image_splits", "image_url")
PACKED = (*ARCHIVES, "images", "resized_image", *TYPES)
BROKEN = "broken_links"
PLACES = ("images", "resized_image", "resized_images", *TYPES, f"image_url/{BROKEN}")
REPORT = "fashioniq_downloads.json"
Names = dict[str, list[str]]  # of each part, as `val dress`


def prepare(raw: Path, out: Path, *, name: str = FOLDER, types: Sequence[str] = (),
            parts: Sequence[str] = (), images: Path | None = None, download_pictures: bool = False,
            allow_missing: bool = False, allow_damaged: bool = False, max_unpacked: float = 200,
            workers: int | None = None) -> Path:
    """Makes out/name. types, parts: some of TYPES and of PARTS (default all). images: the folder of
    the pictures. download_pictures: fetch the missing ones first. allow_missing: leave out listed
    pictures that are not there. Raises PreparationError, or what `replication.composed` finds
    wrong."""
    types, parts = chosen(types, TYPES, "type"), chosen(parts, PARTS, "part")
    settings = {"name": NAME, "types": types, "parts": parts}
    target = out / name
    if is_there(target, settings, allow_missing):
        return target
    source = Raw(raw, out / ".unpacked" / NAME, max_unpacked)
    files = _annotations(source, types, parts)
    listed = {f"{part} {own}": _split(files[f"image_splits/split.{own}.{part}.json"])
              for part in parts for own in types}
    names = list(dict.fromkeys(one for own in listed.values() for one in own))
    urls = picture_urls(source)
    if download_pictures:
        _download(source, images, names, urls)
    found = _found(source, images, names)
    report = url_report(listed, urls, found)
    print("\n".join(f"  {what}: {n:,}" for what, n in report.items()))
    some = [part for part, own in listed.items() if any(one in found.file for one in own)]
    check = functools.partial(_read, parts=some, partial=allow_missing or allow_damaged)
    return prepare_composed(
        target, settings, files, listed, found, functools.partial(_item, _parts_of(listed)),
        check=check, notes={"listed": _counts(files, listed), "names": report},
        allow_missing=allow_missing, allow_damaged=allow_damaged, workers=workers)


def _annotations(raw: Raw, types: Sequence[str], parts: Sequence[str]) -> dict[str, Path]:
    places = [f"{folder}.{own}.{part}.json" for part in parts for own in types
              for folder in ("captions/cap", "image_splits/split")]
    return annotations(raw, ARCHIVES, {place: () for place in places}, NAME)


def _split(file: Path) -> list[str]:
    content = read_rows(file)
    if not all(isinstance(one, str) and one and one == os.path.basename(one) for one in content):
        raise PreparationError(f"{file} is not a list of image names: is it another file?")
    return content


def _found(raw: Raw, images: Path | None, names: Collection[str]) -> Found:
    """The pictures of raw, or of the folder that was named, then of `broken_links`."""
    if images is None:
        return pictures(raw, PACKED, PLACES, names, last=BROKEN)
    if not images.is_dir():
        raise PreparationError(f"{images} is no folder: --images is where the pictures are")
    broken = raw.find(ARCHIVES, PLACES[-1])
    return found_in([images, *([broken] if broken else [])], last=BROKEN)


def _parts_of(listed: Names) -> dict[str, tuple[str, str]]:
    """Of each name: its parts, as `train+val`, and its types, as `shirt+toptee`."""
    parts: dict[str, set[str]] = {}
    types: dict[str, set[str]] = {}
    for both, names in listed.items():
        part, own = both.split()
        for name in names:
            parts.setdefault(name, set()).add(part)
            types.setdefault(name, set()).add(own)
    return {name: ("+".join(p for p in PARTS if p in own), "+".join(sorted(types[name])))
            for name, own in parts.items()}


def _item(of: dict[str, tuple[str, str]], name: str, file: str) -> Item:
    part, own = of[name]
    return Item(f"images/{name}{os.path.splitext(file)[1]}", Path(file), part, "images", own)


def _counts(files: Mapping[str, Path], listed: Names) -> dict[str, dict[str, int]]:
    """Images and queries of each part and type."""
    result = {}
    for both, names in listed.items():
        part, own = both.split()
        queries = read_rows(files[f"captions/cap.{own}.{part}.json"])
        result[both] = {"images": len(names), "queries": len(queries)}
    return result


def _read(half: Path, parts: Sequence[str], partial: bool) -> None:
    """Reads every part but test, which has no targets."""
    from replication.composed import read_composed  # not above: workers need no torch

    def read(both: str) -> object:
        part, own = both.split()
        return read_composed(half.resolve(), NAME, part, types=own, allow_missing=partial)

    read_parts([both for both in parts if not both.startswith("test ")], read,
               "; --types and --parts prepare some only")


# ---------------------------------------------------------------------------------------- URLs


def picture_urls(raw: Raw) -> dict[str, list[str]] | None:
    """Name -> its URLs, from the lists of all types; None where there is no list. Raises
    PreparationError where one of them is absent, and for a line that is not a name, a tab and a
    URL."""
    lists = {place: raw.find(ARCHIVES, f"image_url/{place}", place)
             for place in (f"asin2url.{own}.txt" for own in TYPES)}
    files = [file for file in lists.values() if file]
    if 0 < len(files) < len(lists):
        raise not_found([place for place, file in lists.items() if not file], raw.folder, NAME)
    urls: dict[str, list[str]] = {}
    for file in files:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            name, _, url = (part.strip() for part in line.partition("\t"))
            if line.strip() and not (name and url.startswith(("http://", "https://"))):
                raise PreparationError(f"{file}, line {number} is not a name, a tab and a URL: "
                                       f"{line[:80]!r}; take the list again")
            if line.strip() and url not in urls.setdefault(name, []):
                urls[name].append(url)
    return urls if files else None


def url_report(listed: Names, urls: Mapping[str, Any] | None, found: Found) -> dict[str, int]:
    """Counts of the names in the split files, of their URLs and of their pictures; without lists of
    URLs no count of these."""
    names = {name for own in listed.values() for name in own}
    missing = names - found.file.keys()
    of_urls = {} if urls is None else {
        "names in no URL list": len(names - urls.keys()),
        "names with a URL and without a picture": len(missing & urls.keys()),
        "names with neither": len(missing - urls.keys())}
    return {"names in the split files": sum(map(len, listed.values())),
            "different names": len(names), **of_urls, "names without a picture": len(missing),
            f"pictures from {BROKEN}": sum(os.path.basename(os.path.dirname(found.file[name]))
                                           == BROKEN for name in names - missing),
            "pictures of no name": len(found.file.keys() - names)}


def _download(raw: Raw, images: Path | None, names: Sequence[str],
              urls: Mapping[str, list[str]] | None) -> None:
    """Fetches the missing pictures that have a URL and writes what failed to REPORT."""
    if urls is None:
        raise not_found([f"image_url/asin2url.{own}.txt" for own in TYPES], raw.folder, NAME)
    folder, report = images or raw.folder / "images", raw.folder / REPORT
    folder.mkdir(parents=True, exist_ok=True)
    there = _found(raw, images, names).file
    wanted = {name: urls[name] for name in names if name in urls and name not in there}
    failed = download(wanted, folder)
    text = json.dumps({"asked": len(wanted), "failed": failed}, indent=1, ensure_ascii=False)
    report.write_text(text + "\n", encoding="utf-8")
    print(f"{len(wanted) - len(failed):,} pictures downloaded into {folder}, {len(failed):,} "
          f"failed: see {report}")


def main(arguments: list[str] | None = None) -> int:
    options = add_missing(parser(NAME, __doc__))
    add_choice(options, "--types", TYPES)
    add_choice(options, "--parts", PARTS)
    options.add_argument("--images", type=Path, help="folder of the pictures, where it is not in "
                                                     "--raw")
    options.add_argument("--download-pictures", action="store_true",
                         help="first fetch missing pictures from their URLs")
    given = options.parse_args(arguments)
    return run(prepare, given, NAME, FOLDER, types=given.types, parts=given.parts,
               images=given.images, download_pictures=given.download_pictures)


if __name__ == "__main__":
    sys.exit(main())
