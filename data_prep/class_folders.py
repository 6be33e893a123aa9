"""What lies in an archive's folder: pictures by class, and class names in whatever spelling."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from data_prep.preparing import PreparationError
from replication.pictures import PICTURES


def pictures_by_class(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """class -> its pictures in order of name; and the files that are none by their suffix or are
    hidden, which a preparation names and leaves. PreparationError where the folder is absent."""
    if not folder.is_dir():
        raise PreparationError(f"{folder} is missing")
    found, strangers = {}, [f for f in sorted(folder.iterdir()) if not f.is_dir()]
    for of_class in sorted(f for f in folder.iterdir() if f.is_dir()):
        files = sorted(of_class.iterdir())
        found[of_class.name] = [f for f in files if _is_picture(f)]
        strangers += [f for f in files if not _is_picture(f)]
    return found, strangers


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURES and not file.name.startswith(".") and file.is_file()


def canonical(name: str) -> str:
    """A class name without what archives spell differently: case, blanks, hyphens, brackets."""
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())


def matched(there: Iterable[str], wanted: Iterable[str], where: object,
            aliases: dict[str, str] | None = None) -> dict[str, str]:
    """wanted class -> the name it has in the archive, whatever the spelling (`canonical`).

    aliases: wanted -> other name. Raises PreparationError that names the classes that are absent
    and those too many.
    """
    named, wanted = {canonical(name): name for name in there}, list(wanted)
    other = {name: canonical((aliases or {}).get(name, name)) for name in wanted}
    result = {name: named.get(other[name], named.get(canonical(name))) for name in wanted}
    absent = [name for name in wanted if not result[name]]
    extra = sorted(set(named.values()) - set(result.values()))
    if absent or extra:
        raise PreparationError(f"{where}: {len(named)} classes, expected {len(wanted)}"
                               + (f"; absent: {', '.join(absent)}" if absent else "")
                               + (f"; too many: {', '.join(extra)}" if extra else ""))
    return result
