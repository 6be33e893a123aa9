"""What preparations share whose lists decide, captioned and composed sets: the folder of archives,
pictures found by their names, what is absent told before any work, and the command line.
"""

import argparse
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.archives import find, unpacked
from data_prep.command import finish, shared
from data_prep.fetch import fetch, how_to_get
from data_prep.preparing import ABOUT, PreparationError, is_prepared
from replication.pictures import PICTURES


class Pictures(NamedTuple):
    """file: of each file name; strangers: what lies among them and is no picture by its name."""

    file: dict[str, Path]
    strangers: list[str]


class Raw(NamedTuple):
    """The folder of archives, packed or unpacked. into: where they are unpacked; limit: GB each."""

    folder: Path
    into: Path
    limit: float

    def find(self, archives: Sequence[str], *inner: str) -> Path | None:
        """The first of the `inner` paths, in the folder or else in its archives of these names:
        what lies there unpacked is not unpacked again."""
        return find([self.folder], *inner) or find(self._unpacked(archives), *inner)

    def pictures(self, archives: Sequence[str], inner: Sequence[str], wanted: Collection[str]
                 ) -> Pictures:
        """The pictures of the `inner` folders; archives are unpacked where a wanted one is not in
        the folder itself."""
        here = _pictures([self.folder], inner)
        if all(image in here.file for image in wanted):
            return here
        packed = _pictures(self._unpacked(archives), inner)
        return Pictures({**packed.file, **here.file}, here.strangers + packed.strangers)

    def _unpacked(self, archives: Sequence[str]) -> list[Path]:
        return unpacked(self.folder, archives, self.into, limit=self.limit)[1:]


def _pictures(folders: Iterable[Path], inner: Sequence[str]) -> Pictures:
    file, strangers = {}, []
    places = dict.fromkeys(find([folder], one) for folder in folders for one in inner)
    for place in (p for p in places if p and p.is_dir()):
        for entry in os.scandir(place):
            if os.path.splitext(entry.name)[1].lower() in PICTURES and entry.name[0] != ".":
                file.setdefault(entry.name, Path(entry.path))
            elif not entry.is_dir():
                strangers.append(f"{place.name}/{entry.name}")
    return Pictures(file, sorted(strangers))


def is_there(target: Path, settings: dict[str, Any], allow_missing: bool) -> bool:
    """As `is_prepared`; a set that lacks pictures is taken only where that is allowed."""
    if not is_prepared(target, settings):
        return False
    missing = json.loads((target / ABOUT).read_text(encoding="utf-8")).get("missing") or {}
    if missing and not allow_missing:
        count = sum(map(len, missing.values()))
        raise PreparationError(f"{target} lacks {count:,} of the listed pictures: --allow-missing "
                               "takes it as the subset it is; for the whole set move it away and "
                               "prepare it again")
    print(f"{target} is there already")
    return True


def not_found(absent: Iterable[str], raw: Path, name: str) -> PreparationError:
    """The error for annotation files that are not there."""
    return PreparationError(f"{raw} has no {', no '.join(absent)}, packed or unpacked\n"
                            + how_to_get(name))


def absent_pictures(missing: Mapping[str, Sequence[str]], listed: Mapping[str, int], name: str
                    ) -> PreparationError:
    """The error for listed pictures that are not there. missing: part -> their names; listed:
    part -> how many it lists."""
    lines = [f"  {part}: {len(names):,} of {listed[part]:,}: {named(names)}"
             for part, names in missing.items()]
    fewer = "; --parts prepares some parts only" if len(listed) > 1 else ""
    return PreparationError(
        "listed pictures that are not there:\n" + "\n".join(lines) + "\n--allow-missing leaves "
        f"them out, names all of them in dataset.json and calls the set a subset{fewer}\n"
        + how_to_get(name))


def named(names: Sequence[str], most: int = 12) -> str:
    """The first ones, and how many more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# ------------------------------------------------------------------------------ the command line


def add_missing(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """--allow-missing."""
    parser.add_argument("--allow-missing", action="store_true",
                        help="leave out listed pictures that are not there, and name them: a "
                             "subset of the published set")
    return parser


def add_choice(parser: argparse.ArgumentParser, option: str, known: Sequence[str]) -> None:
    """An option that takes some of `known`."""
    parser.add_argument(option, action="append", default=[], metavar="NAME,...",
                        help=f"only these of {', '.join(known)} (default all)")


def run(make: Callable[..., Path], given: argparse.Namespace, name: str, folder: str = "", *,
        only: Callable[[], Sequence[str]] = tuple, **own: Any) -> int:
    """Calls a set's `prepare` with the options that all of them have and its `own`. With --fetch,
    what is not in --raw is downloaded first, but for a set that is there.

    folder: of the prepared set, by default its name; only: the files to download.
    """
    place = given.name or folder or name

    def made() -> Path:
        if given.fetch and not (given.out / place).exists():
            fetch(name, given.raw, only())
        return make(given.raw, given.out, name=place, allow_missing=given.allow_missing,
                    **shared(given), **own)

    return finish(made)
