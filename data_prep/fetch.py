"""Where the official files are, and the download of those that need no form and no log-in.

    python -m data_prep.fetch NAME --raw FOLDER [--only FILE ...]

NAME is a set of sources.yml, the one file of this project with addresses of data. Without --only,
what every preparation needs is downloaded; FILE is a file's name, or the folder of several. What
lies in FOLDER already, by hand or not, is checked and not downloaded again. SHA-256 of what was
checked are kept in FOLDER/NAME.sha256.json, so that a later change is noticed where no published
one is known.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pooch
from tqdm import tqdm

from data_prep.class_lists import class_lists
from data_prep.preparing import PreparationError
from data_prep.resuming import Resuming
from data_prep.sources import CLASS, File, how_to_get, source


def fetch(name: str, raw: Path, only: Sequence[str] = ()) -> list[Path]:
    """Downloads the files of a set that need no form and no log-in into `raw`, goes on with what a
    stopped call left, and returns their places.

    only: names of files or their folders; by default what is always needed. Raises PreparationError
    that ends with what to download by hand: offline, a refusal, a wrong size or hash, no room.
    """
    files = _chosen(name, only)
    raw.mkdir(parents=True, exist_ok=True)
    try:
        result = [_fetched(name, file, raw) for file in files
                  if file.how == "https" or (raw / file.name).is_file()]
    except PreparationError as error:
        raise PreparationError(f"{error}\n{how_to_get(name)}") from None
    by_hand = [file.name for file in files
               if file.how != "https" and not (raw / file.name).exists()]
    if by_hand:
        print(f"{name}: not downloaded, because they need a form, a log-in or a click: "
              f"{', '.join(by_hand)}")
    return result


def _chosen(name: str, only: Sequence[str]) -> list[File]:
    """One entry a file that `only` names, a class's files singly."""
    files = [one for file in source(name).files for one in _each_class(file)]
    if not only:
        return [file for file in files if file.needed == "always"]
    wanted = {pick: [f for f in files if f.name == pick or f.name.startswith(f"{pick}/")]
              for pick in (one.rstrip("/") for one in only)}
    if unknown := [pick for pick, found in wanted.items() if not found]:
        known = ", ".join(file.name for file in source(name).files)
        raise PreparationError(f"{name} has no {', '.join(unknown)}: choose of {known}")
    picked = {file.name for found in wanted.values() for file in found}
    return [file for file in files if file.name in picked]


def _each_class(file: File) -> list[File]:
    if not file.classes:
        return [file]
    lists, result = class_lists(file.classes), []
    for own in lists.classes:
        official = file.spelling.get(own) or lists.aliases.get(own) or own.replace("_", " ")
        result.append(file.model_copy(update={
            "name": file.name.replace(CLASS, official), "classes": None,
            "url": file.url and file.url.replace(CLASS, quote(official))}))
    return result


# ------------------------------------------------------------------------------- one file, checked


def _fetched(name: str, file: File, raw: Path) -> Path:
    place, note = raw / file.name, raw / f"{name}.sha256.json"
    known = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    if not place.exists():
        _download(file, place)
    elif _is_unchanged(place, file, known.get(file.name)):
        return place
    checked = _checked(place, file, known.get(file.name))
    temporary = note.with_name(f".{note.name}.{os.getpid()}")
    temporary.write_text(json.dumps({**known, file.name: checked}, indent=1, sort_keys=True))
    temporary.replace(note)
    return place


def _download(file: File, place: Path) -> None:
    pooch.get_logger().setLevel("WARNING")  # its advice is for programmers
    place.parent.mkdir(parents=True, exist_ok=True)
    expected = f"md5:{file.md5}" if file.md5 and not file.sha256 else file.sha256
    try:
        pooch.retrieve(file.url, expected, fname=place.name, path=place.parent,
                       downloader=Resuming(place, file.bytes))
    except PreparationError:
        raise
    except ValueError as error:
        raise PreparationError(f"{file.url} is not the published file, or was damaged on its way: "
                               f"{str(error).split('. ')[0]} ({file.checked}). What came was "
                               "deleted: repeat the command") from None


def _stat(place: Path) -> dict[str, int]:
    about = place.stat()
    return {"bytes": about.st_size, "mtime_ns": about.st_mtime_ns}


def _is_unchanged(place: Path, file: File, before: dict[str, Any] | None) -> bool:
    """Whether this very file was checked before, against the same published hash."""
    return bool(before) and before | _stat(place) == before \
        and before["sha256"] == (file.sha256 or before["sha256"])


def _checked(place: Path, file: File, before: dict[str, Any] | None) -> dict[str, Any]:
    """Size, time and SHA-256 of a file that is what it should be; PreparationError for another."""
    about, away = _stat(place), "move it away and repeat the command"
    if file.bytes not in (None, about["bytes"]):
        raise PreparationError(f"{place} has {about['bytes']:,} bytes, the published file "
                               f"{file.bytes:,} ({file.checked}): cut short, or another; {away}")
    found = _hashes(place, ["sha256", *(["md5"] if file.md5 else [])])
    for what, expected in (("sha256", file.sha256), ("md5", file.md5)):
        if expected and found[what] != expected:
            raise PreparationError(f"{place} is not the published file: its {what} is "
                                   f"{found[what]}, not {expected} ({file.checked}); {away}")
    if before and before["sha256"] != found["sha256"]:
        raise PreparationError(f"{place} has changed since it was checked: SHA-256 "
                               f"{found['sha256']}, then {before['sha256']}; {away}")
    if not (before or file.sha256 or file.md5):
        print(f"{file.name}: SHA-256 {found['sha256']} (no published one is known)")
    return {**about, "sha256": found["sha256"]}


def _hashes(place: Path, kinds: Sequence[str]) -> dict[str, str]:
    each = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    with open(place, "rb") as content, tqdm(
            total=place.stat().st_size, desc=f"check {place.name}", unit="B", unit_scale=True,
            mininterval=0.5, delay=1, leave=False) as bar:
        while chunk := content.read(1 << 20):
            for one in each.values():
                one.update(chunk)
            bar.update(len(chunk))
    return {what: one.hexdigest() for what, one in each.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m data_prep.fetch", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a set of sources.yml")
    parser.add_argument("--raw", type=Path, required=True, help="folder for the files")
    parser.add_argument("--only", nargs="+", default=(), metavar="FILE", help="files or folders")
    chosen = parser.parse_args(arguments)
    try:
        for place in fetch(chosen.name, chosen.raw, chosen.only):
            print(place)
    except (PreparationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
