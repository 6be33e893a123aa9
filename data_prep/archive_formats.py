"""Reads zip, 7z and tar archives in one form for `archives`: first all members as they are stored,
then their bytes in the archive's own order. Nothing here decides what is safe.
"""

import bz2
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import py7zr
import py7zr.io
from py7zr.exceptions import ArchiveError, PasswordRequired, UnsupportedCompressionMethodError
from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
ZIP, SEVEN_ZIP = (b"PK\x03\x04", b"PK\x05\x06"), b"7z\xbc\xaf\x27\x1c"
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
TAR_HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE,
               tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
CHUNK = 1 << 20  # bytes
NOT_READ = (NotImplementedError, UnsupportedCompressionMethodError)
# What the readers raise on bytes that are not what a header promises.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, ArchiveError, zlib.error, lzma.LZMAError,
          struct.error, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError,
          AssertionError, ArithmeticError, MemoryError)


class Member(NamedTuple):
    """What an archive says of a member. name: as stored, with forward slashes; size: in bytes when
    unpacked; problem: why it is neither a file nor a folder; key: what its reader takes."""

    name: str
    size: int
    folder: bool
    problem: str
    key: Any

    @property
    def place(self) -> str:
        """The name without what says nothing: `./a//b` is `a/b`."""
        return "/".join(part for part in self.name.split("/") if part not in ("", "."))


class Written(py7zr.io.Py7zIO):
    """One file that is written, in the form that py7zr asks for."""

    def __init__(self, file: IO[bytes], count: Callable[[int], None]):
        self.file, self.count = file, count

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes | bytearray) -> int:
        self.count(len(data))
        return self.file.write(data)

    def close(self) -> None:
        self.file.close()

    def size(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        self.file.flush()

    def read(self, size: int | None = None) -> bytes:
        raise OSError("this file is only written")

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("this file is only written")


Output = Callable[[str], Written]  # place -> the open file


def kind(file: Path) -> str:
    """"zip", "7z" or "tar" (also compressed), by the first bytes; "" for anything else. What is
    compressed and damaged so early that its content cannot be told counts as tar."""
    with open(file, "rb") as content:
        start = content.read(tarfile.BLOCKSIZE)
    if start.startswith((*ZIP, SEVEN_ZIP)):
        return "7z" if start.startswith(SEVEN_ZIP) else "zip"
    try:
        if unpacked := _unpacker(start):
            with unpacked(file) as content:
                start = content.read(tarfile.BLOCKSIZE)
    except DAMAGE:
        return "tar"
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
        return "tar"
    except tarfile.HeaderError:
        return ""


def _unpacker(start: bytes) -> Callable[..., IO[bytes]] | None:
    return next((unpacked for magic, unpacked in PACKED.items() if start.startswith(magic)), None)


@contextmanager
def opened(archive: Path, progress: bool) -> Iterator["_Zip | _Tar | _SevenZip"]:
    """A reader with `members()` and `copy(members, output)`. Raises one of DAMAGE, of NOT_READ, or
    PasswordRequired, there and in its methods."""
    found = kind(archive)
    with ExitStack() as stack:
        file = stack.enter_context(open(archive, "rb"))
        if found == "tar":
            bar = stack.enter_context(tqdm(total=archive.stat().st_size, unit="B", unit_scale=True,
                                           desc=f"read {archive.name}", mininterval=0.5,
                                           leave=False, disable=not progress))
            unpacked = _unpacker(file.peek(8))
            counted = CallbackIOWrapper(bar.update, file, "read")
            yield _Tar(stack.enter_context(unpacked(counted)) if unpacked else file, bar)
        else:
            yield _Zip(file) if found == "zip" else _SevenZip(file)


def _mode_problem(mode: int) -> str:
    """What a Unix mode says; 0 where the archive keeps none."""
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    ordinary = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
    return "" if ordinary else "a device, a pipe or a socket"


class _Zip:
    def __init__(self, file: IO[bytes]):
        self.zip = zipfile.ZipFile(file)

    def members(self) -> Iterator[Member]:
        for info in self.zip.infolist():
            if info.compress_type not in ZIP_METHODS:
                names = zipfile.compressor_names
                raise NotImplementedError(names.get(info.compress_type, info.compress_type))
            if info.flag_bits & 1:
                raise PasswordRequired
            folder = info.is_dir() or bool(info.external_attr & 0x10 and not info.file_size)
            yield Member(_zip_name(info), info.file_size, folder,
                         _mode_problem(info.external_attr >> 16), info)

    def copy(self, members: Sequence[Member], output: Output) -> None:
        for member in members:
            with self.zip.open(member.key) as content, output(member.place) as file:
                shutil.copyfileobj(content, file, CHUNK)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Names without the UTF-8 flag are code page 437 by the standard, but many programs write UTF-8
    there: what is valid UTF-8 is taken for it."""
    if not info.flag_bits & 0x800:
        try:
            return info.orig_filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return info.orig_filename


class _Header(tarfile.TarInfo):
    """Refuses what makes tarfile run forever or fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or header.type in TAR_HEADERS and header.size > CHUNK:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


class _Tar:
    def __init__(self, stream: IO[bytes], bar: tqdm):
        self.tar = tarfile.TarFile(fileobj=stream, tarinfo=_Header, encoding="utf-8")
        self.stream, self.bar = stream, bar

    def members(self) -> Iterator[Member]:
        for info in self.tar:
            problem = "" if info.isreg() or info.isdir() else "a link, a device or a pipe"
            yield Member(_tar_name(info.name), info.size, info.isdir(), problem, info)
        # tarfile takes a broken header, and the end of the file, for the end of the archive.
        self.stream.seek(self.tar.offset)
        if self.stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end mark")
        while self.stream.read(CHUNK):  # a compressed stream has its checksum at its end
            pass
        self.bar.close()

    def copy(self, members: Sequence[Member], output: Output) -> None:
        for member in members:
            with self.tar.extractfile(member.key) as content, output(member.place) as file:
                shutil.copyfileobj(content, file, CHUNK)


def _tar_name(name: str) -> str:
    """Old archives hold names in Latin-1: what is not UTF-8 is taken for it."""
    try:
        name.encode("utf-8")
        return name
    except UnicodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")


class _SevenZip:
    def __init__(self, file: IO[bytes]):
        self.archive = py7zr.SevenZipFile(file)  # an open file: py7zr starts no threads

    def members(self) -> Iterator[Member]:
        for file in self.archive.files:
            link = file.is_symlink or file.is_junction
            yield Member(file.filename, file.uncompressed, file.is_directory,
                         "a symbolic link" if link else _mode_problem(file.st_fmt or 0),
                         file.filename)

    def copy(self, members: Sequence[Member], output: Output) -> None:
        self.archive.extract(targets={member.key for member in members}, factory=_Writers(output))


class _Writers(py7zr.io.WriterFactory):
    def __init__(self, output: Output):
        self.output = output

    def create(self, filename: str) -> Written:
        return self.output(filename)
