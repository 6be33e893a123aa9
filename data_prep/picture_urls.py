"""Pictures fetched one by one from their own URLs, where a set has no archive: a few at a time,
each looked at before it counts."""

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from replication.pictures import look

THREADS = 4
TIMEOUT = 10, 30  # seconds to connect, and between two parts of an answer
MOST_BYTES = 50_000_000
RETRY = Retry(3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
SUFFIX = {"JPEG": ".jpg", "PNG": ".png"}  # by content: a name may say what it is not
LEAST = 16  # pixels a side: what is smaller shows nothing
_own = threading.local()


def download(urls: Mapping[str, Sequence[str]], folder: Path) -> dict[str, str]:
    """Fetches a picture for each name from the first of its URLs that has one, as `folder/<name>`
    with .jpg or .png by its content, and returns the names that failed with the reason.

    A name whose file is there is left alone, so that a call continues a killed one. A picture is
    decoded whole before it gets its name.
    """
    wanted = [name for name in urls
              if not any((folder / (name + suffix)).exists() for suffix in SUFFIX.values())]
    with ThreadPoolExecutor(THREADS) as pool:
        problems = list(tqdm(pool.map(lambda name: _fetched(name, urls[name], folder), wanted),
                             total=len(wanted), desc="download pictures", unit="file",
                             mininterval=0.5))
    return {name: problem for name, problem in zip(wanted, problems, strict=True) if problem}


def _fetched(name: str, urls: Sequence[str], folder: Path) -> str:
    """Why there is no picture, empty where there is."""
    if Path(name).name != name:
        return "its name leads out of the folder"
    problems = []
    for url in urls:
        try:
            data = _answer(url)
            suffix = _suffix(data)
        except (requests.RequestException, ValueError) as error:
            problems.append(f"{url}: {_short(error)}")
            continue
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(data)
        temporary.replace(folder / (name + suffix))
        return ""
    return "; ".join(problems)


def _answer(url: str) -> bytes:
    """The body; busy servers are asked again, which a 404 is not."""
    if not hasattr(_own, "session"):
        _own.session = requests.Session()
        for scheme in ("http://", "https://"):
            _own.session.mount(scheme, HTTPAdapter(max_retries=RETRY))
    with _own.session.get(url, timeout=TIMEOUT, stream=True) as answer:
        answer.raise_for_status()
        data = bytearray()
        for part in answer.iter_content(1 << 16):
            data += part
            if len(data) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES // 1_000_000} MB")
    return bytes(data)


def _suffix(data: bytes) -> str:
    found = look(data)
    if found.problem:
        raise ValueError(f"no whole picture ({found.problem})")
    if found.format not in SUFFIX:
        raise ValueError(f"a {found.format}, which the readers of the set do not open")
    if min(found.size) < LEAST:
        raise ValueError("{} x {} pixels: a placeholder".format(*found.size))
    return SUFFIX[found.format]


def _short(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
