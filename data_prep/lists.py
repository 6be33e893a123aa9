"""Published lists of what is in a split: `<path> <class id>` a line, and `<class> <class id>` a
line for its classes.

ZSE-SBIR publishes such lists (folder datasets of its code). A folder of them holds `cname_cid.txt`
(the seen classes) and `cname_cid_zero.txt` (the unseen ones), and files whose names tell what they
list: `train` or `zero`, and `sketch` or `png` for sketches, `photo` or `image` for photos. Other
files are not read; a part without a list is taken whole.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.class_folders import canonical
from data_prep.class_lists import Split
from data_prep.preparing import PreparationError

PARTS = {"train": "train", "zero": "val"}
CLASSES = {"train": "cname_cid.txt", "val": "cname_cid_zero.txt"}
MARKS = {"sketch": ("sketch", "png"), "photo": ("photo", "image")}

Found = dict[str, dict[str, list[Path]]]  # source -> class -> files; one source is the sketches


class Line(NamedTuple):
    """path: as listed; class_: the name that its class id has."""

    path: str
    class_: str

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


class Lists(NamedTuple):
    """classes: `train`, `val` -> class names; lines: (part, domain) -> what is listed; files:
    (part, domain) -> name of the list; digest: of everything that was read."""

    folder: Path
    classes: dict[str, tuple[str, ...]]
    lines: dict[tuple[str, str], list[Line]]
    files: dict[tuple[str, str], str]
    digest: str


def read_lists(folder: Path) -> Lists:
    """Reads a folder of lists. Raises PreparationError that names every line that is none, whose
    class id no class has, or whose folder is not its class."""
    files = _list_files(folder)
    digest, classes, lines, wrong = hashlib.sha256(), {}, {}, []
    for part, file in CLASSES.items():
        ids = {id_: name for name, id_ in _pairs(folder / file, digest)}
        classes[part] = tuple(ids.values())
        for domain in MARKS:
            if (part, domain) in files:
                own = [Line(path, ids.get(id_, "")) for path, id_
                       in _pairs(folder / files[part, domain], digest)]
                wrong += [f"{files[part, domain]}: {line.path}" for line in own
                          if canonical(Path(line.path).parent.name) != canonical(line.class_)]
                lines[part, domain] = own
    if wrong:
        raise PreparationError(f"{folder}: {len(wrong):,} lines whose folder is not the class of "
                               f"their id:{_shown(wrong)}")
    return Lists(folder, classes, lines, files, f"sha256:{digest.hexdigest()[:32]}")


def _list_files(folder: Path) -> dict[tuple[str, str], str]:
    missing = [name for name in CLASSES.values() if not (folder / name).is_file()]
    if missing:
        raise PreparationError(f"{folder} lacks {', '.join(missing)}: --lists takes a folder of "
                               "published lists, as datasets/Sketchy/zeroshot1 of ZSE-SBIR")
    files: dict[tuple[str, str], str] = {}
    for file in sorted(f.name for f in folder.glob("*.txt") if f.name not in CLASSES.values()):
        for mark, part in PARTS.items():
            domain = _domain(file.casefold())
            if mark in file.casefold() and domain:
                if (part, domain) in files:
                    raise PreparationError(f"{folder}: two lists of {part} {domain}, {file} and "
                                           f"{files[part, domain]}: keep one")
                files[part, domain] = file
    if not files:
        raise PreparationError(f"{folder} holds no list: a name has train or zero, and one of "
                               f"{', '.join(sum(MARKS.values(), ()))}")
    return files


def _domain(file: str) -> str:
    return next((domain for domain, marks in MARKS.items() if any(m in file for m in marks)), "")


def _pairs(file: Path, digest: Any) -> Iterator[tuple[str, str]]:
    content = file.read_bytes()
    digest.update(file.name.encode() + b"\n" + content)
    for line in filter(str.strip, content.decode("utf-8-sig").splitlines()):
        first, _, last = line.strip().rpartition(" ")
        if not first or not last.isdigit():
            raise PreparationError(f"{file}: {line!r} is not `<name> <class id>`")
        yield first, last


def check_split(lists: Lists, split: Split, name: str) -> None:
    """PreparationError where the lists are of another split than `name`."""
    for part, own in (("train", split.seen), ("val", split.unseen)):
        listed = set(map(canonical, lists.classes[part]))
        if listed != set(map(canonical, own)):
            raise PreparationError(f"{lists.folder / CLASSES[part]} names {len(listed)} classes, "
                                   f"which are not the {len(own)} of split {name}: give the lists' "
                                   "own --split")


def only_listed(lists: Lists, found: Found, split: Split,
                source_of: Callable[[str, str], str] = lambda domain, path: domain
                ) -> tuple[Found, dict[str, Any]]:
    """What the lists name of what was found, and what there is to note of it.

    found: source -> class -> files, under the split's class names; the source `sketch` holds the
    sketches, all others photos. source_of: (domain, listed path) -> source. A listed file is
    matched by its name, or by its name without suffix. Raises PreparationError that lists what is
    named and absent.
    """
    result: Found = {source: {} for source in found}
    absent, twice, left = [], {}, {}
    for part, classes in (("train", split.seen), ("val", split.unseen)):
        for domain in MARKS:
            own = [s for s in found if (s == "sketch") == (domain == "sketch")]
            there = {s: {c: found[s].get(c, []) for c in classes} for s in own}
            if (part, domain) in lists.lines:
                lines = lists.lines[part, domain]
                picked, lost = _picked(lines, there, lambda p, d=domain: source_of(d, p))
                absent += lost
                twice[f"{part}/{domain}"] = _twice(lines)
                left[f"{part}/{domain}"] = _count(there) - _count(picked)
                there = picked
            for source in own:
                result[source].update(there[source])
    if absent:
        raise PreparationError(f"{len(absent):,} files that {lists.folder} lists are absent:"
                               f"{_shown(absent)}\nTake them from the archives; without --lists "
                               "everything that is there goes in")
    return result, _noted(lists, twice, left)


def _picked(lines: list[Line], there: Found, source_of: Callable[[str], str]
            ) -> tuple[Found, list[str]]:
    """The listed files of one part and domain, and the paths of those that are absent."""
    index = {(source, canonical(class_), key): (class_, file)
             for source, classes in there.items() for class_, files in classes.items()
             for file in files for key in (file.stem, file.name)}
    chosen: dict[str, dict[str, set[Path]]] = {s: {c: set() for c in there[s]} for s in there}
    absent = []
    for line in lines:
        source, class_ = source_of(line.path), canonical(line.class_)
        hit = (index.get((source, class_, line.name))
               or index.get((source, class_, Path(line.name).stem)))
        if hit:
            chosen[source][hit[0]].add(hit[1])
        else:
            absent.append(line.path)
    return {s: {c: sorted(files) for c, files in own.items()} for s, own in chosen.items()}, absent


def _twice(lines: list[Line]) -> list[str]:
    times = Counter(f"{line.class_}/{line.name}" for line in lines)
    return sorted(name for name, n in times.items() if n > 1)


def _count(found: Found) -> int:
    return sum(len(files) for classes in found.values() for files in classes.values())


def _noted(lists: Lists, twice: dict[str, list[str]], left: dict[str, int]) -> dict[str, Any]:
    whole = [f"{part}/{domain}" for part in CLASSES for domain in MARKS
             if (part, domain) not in lists.files]
    return {"files": {f"{part}/{domain}": {"file": lists.files[part, domain], "lines": len(lines)}
                      for (part, domain), lines in lists.lines.items()},
            "taken_whole": whole,
            "not_listed": left,
            "listed_twice": {part: {"count": len(names), "names": names}
                             for part, names in twice.items() if names}}


def _shown(names: list[str], most: int = 50) -> str:
    more = f"\n  and {len(names) - most:,} more" if len(names) > most else ""
    return "".join(f"\n  {name}" for name in names[:most]) + more
