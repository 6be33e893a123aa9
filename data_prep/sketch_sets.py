"""What the preparations of sketch sets share: where pictures lie, under which class, what is left.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.archives import find, unpacked
from data_prep.class_folders import matched
from data_prep.class_lists import Split
from data_prep.fetch import fetch, how_to_get
from data_prep.preparing import Item, PreparationError, is_prepared


def is_there(name: str, raw: Path, target: Path, settings: dict[str, Any], download: bool,
             only: Sequence[str] = ()) -> bool:
    """Whether `target` is prepared already, which is told; if not, and where that is asked for,
    downloads into `raw` what needs no login. only: files of sources.yml."""
    if is_prepared(target, settings):
        print(f"{target} is there already")
        return True
    if download:
        fetch(name, raw, only)
    return False


def located(raw: Path, inner: Sequence[str], archives: Sequence[str], into: Path, limit: float
            ) -> Path | None:
    """The first of `inner` that lies in `raw`, or in its archives of these names, which are
    unpacked into `into` only then. limit: GB."""
    return find([raw], *inner) or find(unpacked(raw, archives, into, limit=limit), *inner)


def plural(domain: str) -> str:
    return {"sketch": "sketches", "photo": "photos"}[domain]


def missing(what: str, name: str) -> PreparationError:
    """The error for something that is not in `raw`, with how to get it."""
    return PreparationError(f"{what}\n{how_to_get(name)}")


def under_own_names(found: dict[str, list[Path]], classes: Iterable[str], where: Path,
                    aliases: dict[str, str] | None = None) -> dict[str, list[Path]]:
    """class -> its pictures, whatever spelling the archive has. Raises PreparationError for classes
    that are absent, too many or empty."""
    names = matched(found, classes, where, aliases)
    empty = [name for name, there in names.items() if not found[there]]
    if empty:
        raise PreparationError(f"{where}: {len(empty)} classes without pictures: "
                               f"{', '.join(empty)}")
    return {name: found[there] for name, there in names.items()}


def parts_of(split: Split) -> dict[str, str]:
    """class -> `train` for the seen, `val` for the unseen ones."""
    return {**dict.fromkeys(split.seen, "train"), **dict.fromkeys(split.unseen, "val")}


def items(domain: str, found: dict[str, list[Path]], parts: dict[str, str],
          instance: Callable[[str], str] = str) -> list[Item]:
    """The pictures of one domain, each at `<part>/<domain>/<class>/<its name>`. instance: of a
    file's stem."""
    return [Item(f"{part}/{domain}/{class_}/{file.name}", file, part, domain, class_,
                 instance(file.stem))
            for class_, part in parts.items() for file in found.get(class_, [])]


def readable(half: Path) -> None:
    """The check of a prepared sketch set: the experiments' own reader takes it."""
    from replication.data import read_sketch_set

    read_sketch_set(half.parent, half.name)


def told(strangers: Sequence[Path], raw: Path) -> list[str]:
    """Files that are no pictures, relative to `raw` where they lie in it; says how many."""
    if strangers:
        print(f"  note: {len(strangers):,} files are no pictures by their names and stay out, as "
              f"{strangers[0]}")
    return [str(f.relative_to(raw) if f.is_relative_to(raw) else f) for f in strangers]
