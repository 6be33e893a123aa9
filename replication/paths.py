"""The only module that knows folders."""

import os
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
RESULT = ROOT / "result"
DATA = Path(os.environ.get("REPLICATION_DATA", ROOT / "data"))
CACHE = Path(os.environ.get("REPLICATION_CACHE", ROOT / ".cache"))


def user_path(path: str | os.PathLike) -> Path:
    """A folder or file as a user typed it in a parameter.

    A relative path counts from the working directory, except inside `book/` (a notebook opened
    in JupyterLab runs there): then it counts from the project's root.
    """
    path = Path(path).expanduser()
    cwd = Path.cwd()
    return path if path.is_absolute() else (ROOT if cwd.is_relative_to(BOOK) else cwd) / path


def shown(path: str | os.PathLike) -> str:
    """The path as messages and records show it: relative to the project's root where it can be."""
    path = Path(path)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def writable_folder(path: str | os.PathLike) -> Path:
    """Makes the folder and proves that a file can be written into it; raises PermissionError."""
    path = user_path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise PermissionError(
            f"cannot write into {path} ({error.strerror}): choose another folder with the "
            "parameter save_root, or change its permissions"
        ) from error


@contextmanager
def replacing(path: str | os.PathLike):
    """Yields a temporary name beside `path`; moves it onto `path` when the block succeeds.

    On any failure, a full disk too, the temporary file goes and the old `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_file(path: str | os.PathLike, write: Callable[[Path], object]) -> Path:
    """Calls `write` on a temporary name and moves the result onto `path`.

    Raises OSError that names the file and says that the old one survived.
    """
    try:
        with replacing(path) as temporary:
            write(temporary)
    except (OSError, RuntimeError) as error:
        kept = "the earlier file is intact" if Path(path).exists() else "no file was left behind"
        raise OSError(f"could not write {shown(path)}: {error} ({kept}; free some space or "
                      "choose another folder, then start again: a run continues from there)"
                      ) from error
    return Path(path)


def write_atomic(path: str | os.PathLike, content: str | bytes) -> Path:
    """Writes text (UTF-8) or bytes so that a reader sees the old file or the new one, whole."""
    data = content.encode() if isinstance(content, str) else content
    return save_file(path, lambda temporary: temporary.write_bytes(data))
