"""Quick, Draw! files: simplified and raw ndjson and binary, one drawing at a time.

An ndjson file has a drawing a line: `key_id`, `word`, `recognized`, `drawing`, whose strokes are
`[xs, ys]` within 0 to 255 (simplified) or `[xs, ys, ts]` of any range (raw). A binary file is
little endian: key_id (8 bytes), country (2), recognized (1), timestamp (4), number of strokes (2),
and for each stroke the number of points (2), its xs and its ys (a byte each); it names no word.
Source: readme and examples/binary_file_parser.py of github.com/googlecreativelab/quickdraw-dataset.
"""

import itertools
import json
import os
import random
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.class_folders import canonical
from data_prep.preparing import PreparationError

Stroke = tuple[Sequence[float], Sequence[float]]  # x and y of its points
SUFFIXES = {"simplified": ".ndjson", "raw": ".ndjson", "binary": ".bin"}
PLACES = ("", *(f"{above}{kind}" for above in ("", "full/", "quickdraw_dataset/full/")
                for kind in SUFFIXES))
SAVED = re.compile(r"^full(_|%2F)(simplified|raw|binary)\1")  # as a browser names full/raw/x
HEAD = struct.Struct("<Q2sBIH")  # of a binary drawing
LONGEST = 2**24  # bytes of a line; a longer one is not read as one
TAIL = 2**20  # bytes at the end of a file in which its last line is looked for
FAR = 1e9  # beyond every screen; also keeps infinity and "not a number" out
FIRST = 20  # drawings in which a readable one has to be
TORN = "the file ends within this drawing: it is torn"
Files = dict[str, dict[str, Path]]  # simplified, raw or binary -> class -> its file


class DrawingError(ValueError):
    """What lies there is no drawing."""


class Drawing(NamedTuple):
    """key_id: 64-bit number in digits; word: what was asked for, empty in binary files;
    recognized: by the game; strokes: at least one point in all."""

    key_id: str
    word: str
    recognized: bool
    strokes: list[Stroke]


class Chosen(NamedTuple):
    """Drawings of a file. taken: key_id -> byte at which the drawing starts; unusable: place and
    reason of what is none of the class; twice: key_ids that came again, the first was taken."""

    taken: dict[str, int]
    unusable: list[str]
    twice: list[str]


def drawing_files(raw: Path, words: dict[str, str], form: str | None = None) -> tuple[Files, int]:
    """The files of drawings of the classes, and how many other categories lie in `raw`.

    words: class -> its category; either may name a file. form: looks only for what may be it. Both
    kinds of ndjson have the same names: their drawings tell them apart. Raises PreparationError
    that names files that cannot be read, and classes with two files of one kind.
    """
    classes = {canonical(name): c for c, word in words.items() for name in (c, word)}
    found: dict[str, dict[str, list[Path]]] = {}
    others, wrong = set(), []
    for file in _candidates(raw, form):
        category = canonical(SAVED.sub("", file.stem))
        if category not in classes:
            others.add(category)
            continue
        try:
            by_class = found.setdefault(file_format(file), {})
            by_class.setdefault(classes[category], []).append(file)
        except DrawingError as error:
            wrong.append(f"{file}: {error}")
    wrong += [f"{' and '.join(map(str, files))}: two files of a class, keep one"
              for kind, by_class in found.items() for files in by_class.values()
              if len(files) > 1 and form in (None, kind)]
    if wrong:
        raise PreparationError("\n  ".join([f"{len(wrong):,} files of drawings cannot be used:",
                                            *wrong]))
    return {kind: {c: files[0] for c, files in own.items()} for kind, own in found.items()
            }, len(others)


def _candidates(raw: Path, form: str | None) -> Iterator[Path]:
    suffixes = {suffix for kind, suffix in SUFFIXES.items() if form in (None, kind)}
    for folder in (raw / place for place in PLACES):
        if folder.is_dir():
            yield from (f for f in sorted(folder.iterdir()) if f.suffix in suffixes and f.is_file()
                        and not f.name.startswith("."))


def file_format(file: Path) -> str:
    """simplified, raw or binary, from the suffix and the first readable drawing (both ndjson
    kinds have the same names); DrawingError where none is readable."""
    if file.suffix == ".bin":
        return "binary"
    reason = "empty file"
    for offset in itertools.islice(offsets(file), FIRST):
        try:
            drawing_at(file, offset)
            return "raw" if len(_record(file, offset)["drawing"][0]) > 2 else "simplified"
        except DrawingError as error:
            reason = str(error)
    raise DrawingError(f"no Quick, Draw! file ({reason})")


def offsets(file: Path) -> Iterator[int]:
    """Bytes at which the drawings of a file start, in order; reads no further than asked for."""
    with open(file, "rb") as content:
        if file.suffix == ".bin":
            yield from _binary_offsets(content, os.fstat(content.fileno()).st_size)
            return
        at = 0
        while line := content.readline(LONGEST):
            if line.strip():
                yield at
            at += len(line)


def _binary_offsets(content: Any, end: int) -> Iterator[int]:
    while (at := content.tell()) < end:
        yield at
        head = content.read(HEAD.size)
        n_strokes = HEAD.unpack(head)[-1] if len(head) == HEAD.size else 0
        for _ in range(n_strokes):
            content.seek(2 * int.from_bytes(content.read(2), "little"), os.SEEK_CUR)


def drawing_at(file: Path, offset: int) -> Drawing:
    """The drawing that starts at a byte; DrawingError says what is wrong with it."""
    record = _record(file, offset)
    try:
        found = Drawing(str(record["key_id"]), str(record.get("word", "")), record["recognized"],
                        [(stroke[0], stroke[1]) for stroke in record["drawing"]])
        _check(found)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DrawingError(f"not as documented ({type(error).__name__}: {error})") from None
    return found


def _check(found: Drawing) -> None:
    if not (found.key_id.isascii() and found.key_id.isdigit() and len(found.key_id) <= 20):
        raise DrawingError(f"key_id {found.key_id[:40]!r} is no number")
    if not isinstance(found.recognized, bool):
        raise DrawingError(f"recognized is {found.recognized!r}, not true or false")
    if any(len(xs) != len(ys) for xs, ys in found.strokes):
        raise DrawingError("a stroke with more x than y, or the reverse")
    values = [value for xs, ys in found.strokes for value in (*xs, *ys)]
    if not values:
        raise DrawingError("no points")
    if not all(-FAR < value < FAR for value in values):
        raise DrawingError("a coordinate that is no number or out of range")


def _record(file: Path, offset: int) -> Any:
    with open(file, "rb") as content:
        content.seek(offset)
        if file.suffix == ".bin":
            return _binary_record(content)
        line = content.readline(LONGEST)
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"no JSON ({str(error)[:60]})" if line.endswith(b"\n") else TORN
        raise DrawingError(reason) from None


def _binary_record(content: Any) -> dict[str, Any]:
    try:
        key_id, _, recognized, _, n_strokes = HEAD.unpack(content.read(HEAD.size))
        strokes = []
        for _ in range(n_strokes):
            n, = struct.unpack("<H", content.read(2))
            points = content.read(2 * n)
            if len(points) < 2 * n:
                raise DrawingError(TORN)
            strokes.append((list(points[:n]), list(points[n:])))
    except struct.error:
        raise DrawingError(TORN) from None
    return {"key_id": key_id, "drawing": strokes,
            "recognized": bool(recognized) if recognized in (0, 1) else recognized}


def choose(file: Path, word: str, n: int, *, recognized_only: bool = False,
           seed: int | None = None, most_unusable: float = FIRST) -> Chosen:
    """n drawings of a class: the first in the file, or with a seed a random choice of all.

    word: the category, in any spelling. The file is read until there are n, or more than
    `most_unusable` that are no drawing of it; with a seed all of it is read once. An ndjson file
    that is torn is told in any case; a binary one shows it only where it is read to its end.
    """
    result = Chosen({}, [], [])
    for offset in _in_order(file, word, seed):
        if len(result.taken) == n or len(result.unusable) > most_unusable:
            break
        try:
            drawing = _of_word(drawing_at(file, offset), word)
        except DrawingError as error:
            result.unusable.append(f"{file.name} at byte {offset:,}: {error}")
            continue
        if drawing.key_id in result.taken:
            result.twice.append(drawing.key_id)
        elif drawing.recognized or not recognized_only:
            result.taken[drawing.key_id] = offset
    if not any(line.endswith(TORN) for line in result.unusable) and _is_torn(file):
        result.unusable.append(f"{file.name}: it ends within its last drawing: it is torn")
    return result


def _in_order(file: Path, word: str, seed: int | None) -> Iterable[int]:
    if seed is None:
        return offsets(file)
    shuffled = list(offsets(file))
    random.Random(f"{seed} {canonical(word)}").shuffle(shuffled)
    return shuffled


def _of_word(drawing: Drawing, word: str) -> Drawing:
    if drawing.word and canonical(drawing.word) != canonical(word):
        raise DrawingError(f"its word is {drawing.word[:40]!r}, not {word!r}")
    return drawing


def _is_torn(file: Path) -> bool:
    """Whether an ndjson file ends within a line, as a download that broke off does."""
    if file.suffix == ".bin":
        return False
    with open(file, "rb") as content:
        content.seek(max(0, content.seek(0, os.SEEK_END) - TAIL))
        end = content.read()
    try:
        return not end.endswith(b"\n") and not json.loads(end[end.rfind(b"\n") + 1:])
    except ValueError:
        return bool(end)
