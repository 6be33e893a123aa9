"""A download for pooch that goes on where it stopped, whether the connection or the process died.

Beside the file lie `<name>.part` and `<name>.part.json`: the address, its size and the server's
mark of this very version (ETag or Last-Modified). With them the server is asked for the rest only
(Range, If-Range); one that has another version, or knows no ranges, sends the whole again.
"""

import fcntl
import json
import re
import shutil
import time
from pathlib import Path
from typing import BinaryIO

import requests
from tqdm import tqdm

from data_prep.preparing import PreparationError

TRIES = 5  # in a row that bring nothing new
WAIT = 2.0  # seconds before the second try, twice as long before each further one
TIMEOUT = (15, 60)  # seconds to connect, and without a byte
CHUNK = 1 << 16  # bytes; of a cut connection at most so many are lost
AGAIN = (408, 425, 429)  # of the 4xx: come back later


class Resuming:
    """Downloader that `pooch.retrieve` calls. place: where the file goes in the end; size: its
    bytes, where known. Raises PreparationError: offline, refused, a web page in place of a file,
    another size, no room; what has come stays for the next call."""

    def __init__(self, place: Path, size: int | None = None, progress: bool = True):
        self.place, self.size, self.progress = place, size, progress
        self.part = place.with_name(f"{place.name}.part")
        self.note = place.with_name(f"{place.name}.part.json")

    def __call__(self, url: str, output: str, pooch: object = None) -> None:
        try:
            with open(self.part, "ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise PreparationError(f"another process downloads {self.place}: wait for "
                                           "it") from None
                self._until_whole(url, file)
            self.part.replace(output)
            self.note.unlink(missing_ok=True)
        finally:
            if self.part.exists() and not self.part.stat().st_size:
                self.part.unlink()
                self.note.unlink(missing_ok=True)

    def _until_whole(self, url: str, file: BinaryIO) -> None:
        failed, most = 0, file.tell()
        while True:
            try:
                return self._go_on(url, file)
            except requests.RequestException as error:
                failed = 0 if file.tell() > most else failed + 1
                most = max(most, file.tell())
                if failed >= TRIES:
                    raise PreparationError(_told(url, error, most)) from None
                time.sleep(WAIT * 2 ** max(0, failed - 1))

    def _go_on(self, url: str, file: BinaryIO) -> None:
        """One request; RequestException where it is worth another."""
        known = self._known(url)
        start = file.tell() if known else 0
        if start and start == known["bytes"]:
            return
        asked = {"Range": f"bytes={start}-", "If-Range": known["version"]} if start else {}
        with requests.get(url, stream=True, timeout=TIMEOUT,
                          headers={"Accept-Encoding": "identity", **asked}) as answer:
            if answer.status_code == 416:  # there is no rest, or the file is another
                whole = answer.headers.get("Content-Range") == f"bytes */{start}"
                self._check_size(url, start if whole else None, start)
                return None if whole else _anew(file, "the rest is not there any more")
            self._check(answer)
            start, total = _offered(answer, start)
            _cut(file, start)
            self._check_size(url, total, start)
            self._remember(url, answer, total)
            self._write(answer, file, total or self.size)
        if (total or self.size or file.tell()) != file.tell():
            raise requests.ConnectionError(f"cut off after {file.tell():,} bytes")

    def _write(self, answer: requests.Response, file: BinaryIO, total: int | None) -> None:
        with tqdm(total=total, initial=file.tell(), desc=self.place.name, unit="B",
                  unit_scale=True, mininterval=0.5, disable=not self.progress) as bar:
            for chunk in answer.iter_content(CHUNK):
                if not file.tell() and _is_page(chunk) and not self._may_be_page():
                    raise PreparationError(self._page(answer.url))
                file.write(chunk)
                file.flush()
                bar.update(len(chunk))
                if total and file.tell() > total:
                    _cut(file, 0)
                    raise PreparationError(f"{answer.url} sends more than {total:,} bytes: it is "
                                           "not the published file")

    def _check(self, answer: requests.Response) -> None:
        told = f"{answer.url}: {answer.status_code} {answer.reason}"
        if answer.status_code >= 500 or answer.status_code in AGAIN:
            raise requests.HTTPError(told)
        if answer.status_code >= 400:
            raise PreparationError(told)
        if answer.headers.get("Content-Type", "").startswith("text/html") \
                and not self._may_be_page():
            raise PreparationError(self._page(answer.url))

    def _may_be_page(self) -> bool:
        return self.place.suffix.lower() in (".html", ".htm", ".svg", ".xml")

    def _page(self, url: str) -> str:
        return (f"{url} sends a web page in place of {self.place.name}: a log-in, a form or a "
                "notice; look at it in a browser")

    def _check_size(self, url: str, total: int | None, start: int) -> None:
        if total and self.size and total != self.size:
            raise PreparationError(f"{url} has {total:,} bytes, the published file {self.size:,}: "
                                   "it was replaced; nothing was downloaded")
        free, needed = shutil.disk_usage(self.place.parent).free, (total or self.size or 0) - start
        if needed > free:
            raise PreparationError(f"{self.place.name} needs {needed / 1e9:,.1f} GB in "
                                   f"{self.place.parent}, where {free / 1e9:,.1f} GB are free")

    def _known(self, url: str) -> dict | None:
        """What is known of the part that is there; None where it is of no use."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return note if note["url"] == url and note["version"] else None

    def _remember(self, url: str, answer: requests.Response, total: int | None) -> None:
        tag = answer.headers.get("ETag", "")
        version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        self.note.write_text(json.dumps({"url": url, "version": version, "bytes": total}))


def _offered(answer: requests.Response, asked: int) -> tuple[int, int | None]:
    """The first byte that an answer holds, and the bytes of the whole file where it says them."""
    if answer.status_code != 206:
        length = answer.headers.get("Content-Length")
        return 0, int(length) if length else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if not found or int(found[1]) != asked:
        raise PreparationError(f"{answer.url} was asked for the rest from byte {asked:,} and sends "
                               "another: remove the .part file and repeat")
    return asked, None if found[2] == "*" else int(found[2])


def _cut(file: BinaryIO, length: int) -> None:
    file.truncate(length)
    file.seek(length)


def _anew(file: BinaryIO, why: str) -> None:
    _cut(file, 0)
    raise requests.ConnectionError(why)


def _is_page(start: bytes) -> bool:
    start = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower()
    return start.startswith((b"<!doctype html", b"<html"))


def _told(url: str, error: Exception, n: int) -> str:
    came = f"; {n:,} bytes have come and stay: the same command goes on there" if n else ""
    return f"{url} could not be downloaded ({type(error).__name__}: {str(error)[:200]}){came}"
