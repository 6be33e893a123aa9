"""Reads `sources.yml`: where the official files of each set are, and what is known of them."""

import functools
import itertools
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.preparing import PreparationError

SOURCES = Path(__file__).with_name("sources.yml")
BY_HAND = {"form": "by a form", "login": "with a log-in", "page": "by hand"}
CLASS = "{class}"  # in a name and a url: one file for each class of a list


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Entry):
    """One file. name: in --raw; how: `https` is what `fetch` downloads, from url, in which `{name}`
    is the name; page: where a person finds it, and
    instructions, what to do there; bytes, sha256, md5: null where no source states them, checked:
    that source; holds: its layout; needed: for every preparation, for an extended set, or for an
    option; classes: of which list `{class}` is, spelling: class -> its official name where that is
    neither the list's alias nor its name with blanks."""

    name: str = Field(pattern=r"^[^/\\]+(/[^/\\]+)*$")
    url: str | None = Field(default=None, pattern=r"^https://")
    how: Literal["https", "form", "login", "page"]
    page: str | None = Field(default=None, pattern=r"^https?://")
    instructions: str = ""
    bytes: int | None = Field(default=None, gt=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    md5: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    checked: str = ""
    holds: str
    needed: Literal["always", "extended", "optional"]
    classes: str | None = None
    spelling: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _named(cls, entry: dict[str, Any]) -> dict[str, Any]:
        url = entry.get("url")
        return {**entry, "url": url.replace("{name}", entry["name"])} if url else entry

    @model_validator(mode="after")
    def _whole(self) -> "File":
        if (self.how == "https") != bool(self.url):
            raise ValueError(f"{self.name}: https without url, or a url that is not downloaded")
        if self.how != "https" and not (self.page and self.instructions):
            raise ValueError(f"{self.name}: {self.how} without page and instructions")
        if (self.bytes or self.sha256 or self.md5) and not self.checked:
            raise ValueError(f"{self.name}: a size or a hash without its source")
        if bool(self.classes) != (CLASS in self.name) or ".." in self.name.split("/"):
            raise ValueError(f"{self.name}: {CLASS} without classes, classes without it, or ..")
        return self


class Source(_Entry):
    """One data set. home: of its authors; licence_note: what they say of its use."""

    home: str = Field(pattern=r"^https?://")
    licence_note: str = ""
    files: tuple[File, ...]

    @model_validator(mode="after")
    def _no_name_twice(self) -> "Source":
        names = [file.name for file in self.files]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"names that stand twice: {', '.join(sorted(twice))}")
        return self


@functools.cache
def sources() -> dict[str, Source]:
    """The content of sources.yml by set, without `shared`, which holds what several entries say."""
    content = yaml.safe_load(SOURCES.read_text(encoding="utf-8"))
    return {name: Source.model_validate(entry) for name, entry in content.items()
            if name != "shared"}


def source(name: str) -> Source:
    """One set's entry; PreparationError for a name that has none."""
    if name not in sources():
        raise PreparationError(f"no set {name!r} in {SOURCES.name}: choose "
                               f"{', '.join(sorted(sources()))}")
    return sources()[name]


def how_to_get(name: str) -> str:
    """What to download for a set: each file, its size, where it is, what to do there, where to put
    it."""
    of = source(name)
    lines = [f"What {name} needs ({of.home}), each file into the folder that --raw names, under "
             "this name:"]
    for (how, place, instructions), files in itertools.groupby(
            of.files, lambda file: (file.how, _place(file), file.instructions)):
        lines += [_described(file) for file in files]
        lines.append(f"    {place}; --fetch downloads it" if how == "https" else
                     f"    {BY_HAND[how]}: {place}")
        lines += [f"    {instructions}"] if instructions else []
    return "\n".join(lines + ([f"  Licence: {of.licence_note}"] if of.licence_note else []))


def _place(file: File) -> str:
    if file.how != "https":
        return file.page or ""
    base = (file.url or "").removesuffix(file.name)
    return f"at {base} and this name" if base != file.url else f"at {file.url}"


def _described(file: File) -> str:
    known = [file.needed, *([_size(file.bytes)] if file.bytes else []),
             *([f"MD5 {file.md5}"] if file.md5 and file.how != "https" else []),
             *(["one for each class"] if file.classes else [])]
    return f"  {file.name} ({', '.join(known)}): {file.holds}"


def _size(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
