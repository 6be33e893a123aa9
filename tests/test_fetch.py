"""Downloads from a server of this test: whole, resumed, refused; and what sources.yml says."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from pydantic import ValidationError

from data_prep import fetch, resuming, sources
from data_prep.class_lists import class_lists
from data_prep.preparing import PreparationError
from data_prep.sources import File, Source, how_to_get

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = ("sketchy tuberlin quickdraw coco flickr30k flickr8k fashioniq cirr circo shoev2 chairv2"
        ).split()
DATA = bytes(range(256)) * 12_000  # 3 MB
SHA256, MD5 = hashlib.sha256(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`. cuts: after how many bytes of the body each next answer is cut off; ranges:
    whether it knows Range; statuses: of the next answers; asked: method and Range of each request;
    sent: bytes of bodies."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.ranges, self.statuses = {"/a.zip": DATA}, [], True, []
        self.tag, self.modified, self.kind, self.length = '"v1"', None, "application/zip", True
        self.asked, self.sent = [], 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, address):
        pass


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server: Server = self.server
        server.asked.append(self.headers.get("Range"))
        data = server.files.get(unquote(self.path))
        status = server.statuses.pop(0) if server.statuses else 200 if data is not None else 404
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Range", f"bytes */{len(DATA)}")
            self.end_headers()
            return
        start, marks = 0, [server.modified, server.tag]
        if server.tag and server.tag.startswith("W/"):
            marks.remove(server.tag)  # a weak tag promises no equal bytes
        if server.ranges and "Range" in self.headers and self.headers.get("If-Range") in marks:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
        self.send_response(206 if start else 200)
        for name, value in (("ETag", server.tag), ("Last-Modified", server.modified),
                            ("Content-Type", server.kind)):
            if value:
                self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if server.length:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:server.cuts.pop(0) + start if server.cuts else None]
        server.sent += len(body)  # before the client can be done
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    with Server() as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(resuming, "WAIT", 0.001)
        yield found
        found.shutdown()


@pytest.fixture
def listed(server, monkeypatch):
    """Puts files into a set `tiny` of the server; a function of entries."""
    def put(*entries: dict) -> None:
        files = tuple(_file(server, **entry) for entry in entries or [{}])
        there = Source(home="https://example.org", files=())
        monkeypatch.setattr(sources, "sources", lambda: {
            "tiny": there.model_copy(update={"files": files})})
    put()
    return put


def _file(server: Server, **entry) -> File:
    whole = {"name": "a.zip", "how": "https", "holds": "a/*.jpg", "needed": "always",
             "checked": "this test", **entry}
    path = whole.pop("path", whole["name"])
    if whole["how"] != "https":
        return File(page="https://example.org/form", instructions="fill in the form", **whole)
    return File(url="https://example.org/x", **whole).model_copy(
        update={"url": f"{server.base}/{path}"})


def left(raw: Path) -> list[str]:
    return sorted(f.name for f in raw.rglob("*") if f.is_file())


def refused(raw: Path, told: str) -> str:
    with pytest.raises(PreparationError, match=told) as error:
        fetch.fetch("tiny", raw)
    assert "What tiny needs" in str(error.value) and "a/*.jpg" in str(error.value)
    assert not (raw / "a.zip").exists()
    return str(error.value)


# ----------------------------------------------------------------------------------------- whole


@pytest.mark.parametrize("known", [{}, {"bytes": len(DATA)}, {"sha256": SHA256}, {"md5": MD5},
                                   {"bytes": len(DATA), "sha256": SHA256, "md5": MD5}])
def test_a_file_comes_whole_and_its_hash_is_kept(server, listed, tmp_path, capsys, known):
    listed(known)
    assert fetch.fetch("tiny", tmp_path / "raw") == [tmp_path / "raw" / "a.zip"]
    assert (tmp_path / "raw" / "a.zip").read_bytes() == DATA
    assert left(tmp_path / "raw") == ["a.zip", "tiny.sha256.json"]
    note = json.loads((tmp_path / "raw" / "tiny.sha256.json").read_text())
    assert note["a.zip"]["sha256"] == SHA256 and note["a.zip"]["bytes"] == len(DATA)
    told = f"a.zip: SHA-256 {SHA256} (no published one is known)"
    assert (told in capsys.readouterr().out) == ("sha256" not in known and "md5" not in known)


def test_a_file_that_is_there_is_not_fetched_again(server, listed, tmp_path, monkeypatch):
    listed({"sha256": SHA256})
    (tmp_path / "a.zip").write_bytes(DATA)
    fetch.fetch("tiny", tmp_path)
    monkeypatch.setattr(fetch, "_hashes", None)  # unchanged since: not even read again
    fetch.fetch("tiny", tmp_path)
    assert server.asked == []


@pytest.mark.parametrize(("known", "told"), [
    ({"sha256": "0" * 64}, f"its sha256 is {SHA256}, not {'0' * 64} .this test"),
    ({"md5": "0" * 32}, f"its md5 is {MD5}, not {'0' * 32} .this test"),
    ({"bytes": 5}, "has 3,072,000 bytes, the published file 5 .this test.: cut short")])
def test_a_wrong_file_that_is_there_is_refused_and_stays(server, listed, tmp_path, known, told):
    listed(known)
    (tmp_path / "a.zip").write_bytes(DATA)
    with pytest.raises(PreparationError, match=told):
        fetch.fetch("tiny", tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA and server.asked == []


def test_a_later_change_is_noticed_without_a_published_hash(server, listed, tmp_path):
    fetch.fetch("tiny", tmp_path)
    (tmp_path / "a.zip").write_bytes(DATA[::-1])
    with pytest.raises(PreparationError, match=f"has changed since .*then {SHA256}; move it away"):
        fetch.fetch("tiny", tmp_path)


def test_a_published_hash_that_is_learnt_later_counts(server, listed, tmp_path):
    fetch.fetch("tiny", tmp_path)
    listed({"sha256": "0" * 64})
    with pytest.raises(PreparationError, match=f"not {'0' * 64}"):
        fetch.fetch("tiny", tmp_path)


def test_names_may_lie_in_folders_and_only_picks_some(server, listed, tmp_path, capsys):
    server.files |= {"/captions/cap.val.json": b"[]", "/captions/cap.test.json": b"[1]"}
    listed({"name": "captions/cap.val.json"}, {"name": "captions/cap.test.json"},
           {"name": "a.zip", "needed": "optional"}, {"name": "form.tar", "how": "form"})
    fetch.fetch("tiny", tmp_path)
    assert left(tmp_path) == ["cap.test.json", "cap.val.json", "tiny.sha256.json"]
    assert sorted(json.loads((tmp_path / "tiny.sha256.json").read_text())) == [
        "captions/cap.test.json", "captions/cap.val.json"]
    assert (tmp_path / "captions/cap.test.json").read_bytes() == b"[1]"
    assert "need a form, a log-in or a click: form.tar" in capsys.readouterr().out
    assert fetch.fetch("tiny", tmp_path, ["a.zip", "captions/cap.val.json"]) == [
        tmp_path / "captions/cap.val.json", tmp_path / "a.zip"]
    assert fetch.fetch("tiny", tmp_path, ["captions/"]) == [
        tmp_path / "captions/cap.val.json", tmp_path / "captions/cap.test.json"]
    with pytest.raises(PreparationError, match="tiny has no b.zip: choose of captions/cap.val"):
        fetch.fetch("tiny", tmp_path, ["a.zip", "b.zip"])


def test_a_class_a_file_with_its_official_name(server, listed, tmp_path):
    listed({"name": "raw/{class}.ndjson", "classes": "quickdraw",
            "spelling": {"teddy_bear": "teddy-bear"}})
    server.files |= {f"/raw/{name}.ndjson": name.encode() for name in (
        "teddy-bear", "The Eiffel Tower", "cruise ship")}
    wanted = [f"raw/{name}.ndjson" for name in ("teddy-bear", "The Eiffel Tower", "cruise ship")]
    found = fetch.fetch("tiny", tmp_path, wanted)
    assert {f.name: f.read_text() for f in found} == {f"{f.stem}.ndjson": f.stem for f in found}
    assert len(found) == 3


def test_the_command_prints_places_or_one_error(server, listed, tmp_path, capsys):
    assert fetch.main(["tiny", "--raw", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "a.zip")
    listed({"name": "b.zip"})
    assert fetch.main(["tiny", "--raw", str(tmp_path), "--only", "b.zip"]) == 1
    assert "error: " in capsys.readouterr().err


# --------------------------------------------------------------------------------------- resumed


def test_a_cut_connection_is_taken_up_where_it_was_cut(server, listed, tmp_path):
    listed({"sha256": SHA256})
    server.cuts = [1_500_000, 1_200_000]
    fetch.fetch("tiny", tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA
    kept = [1_500_000 // resuming.CHUNK * resuming.CHUNK]
    kept.append(kept[0] + 1_200_000 // resuming.CHUNK * resuming.CHUNK)
    assert server.asked == [None, *(f"bytes={n}-" for n in kept)]
    assert len(DATA) < server.sent < len(DATA) + 2 * resuming.CHUNK


def test_a_killed_process_leaves_what_came_for_the_next_one(server, listed, tmp_path, monkeypatch):
    write, n = resuming.tqdm.update, []

    def stop(self, *args):
        n.append(write(self, *args))
        if len(n) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(resuming.tqdm, "update", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("tiny", tmp_path)
    monkeypatch.undo()
    assert left(tmp_path) == ["a.zip.part", "a.zip.part.json"]
    came = (tmp_path / "a.zip.part").stat().st_size
    assert came == 2 * resuming.CHUNK
    file = _file(server, sha256=SHA256)
    fetch._fetched("tiny", file, tmp_path)
    assert server.asked[-1] == f"bytes={came}-"
    assert (tmp_path / "a.zip").read_bytes() == DATA and "a.zip.part" not in left(tmp_path)


def test_a_part_that_is_whole_needs_no_request(server, listed, tmp_path):
    part = {"url": f"{server.base}/a.zip", "version": '"v1"', "bytes": len(DATA)}
    (tmp_path / "a.zip.part").write_bytes(DATA)
    (tmp_path / "a.zip.part.json").write_text(json.dumps(part))
    fetch.fetch("tiny", tmp_path)
    assert server.asked == [] and (tmp_path / "a.zip").read_bytes() == DATA


@pytest.mark.parametrize(("change", "sent"), [
    (lambda s: setattr(s, "ranges", False), len(DATA)),  # sends the whole again
    (lambda s: (setattr(s, "tag", '"v2"'), s.files.update({"/a.zip": DATA[::-1]})), len(DATA)),
    (lambda s: setattr(s, "tag", 'W/"weak"'), len(DATA)),  # not the version of the part
    (lambda s: None, len(DATA) - 1_000_000)])
def test_what_cannot_be_taken_up_is_fetched_anew(server, listed, tmp_path, change, sent):
    part = {"url": f"{server.base}/a.zip", "version": '"v1"', "bytes": len(DATA)}
    (tmp_path / "a.zip.part").write_bytes(DATA[:1_000_000])
    (tmp_path / "a.zip.part.json").write_text(json.dumps(part))
    change(server)
    fetch.fetch("tiny", tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == server.files["/a.zip"]
    assert server.asked == ["bytes=1000000-"] and server.sent == sent


@pytest.mark.parametrize("note", ["{", '{"url": "http://other", "version": "v", "bytes": 1}', None,
                                  '{"url": "URL", "version": null, "bytes": null}'])
def test_a_part_of_unknown_origin_is_not_used(server, listed, tmp_path, note):
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    if note:
        (tmp_path / "a.zip.part.json").write_text(note.replace("URL", f"{server.base}/a.zip"))
    fetch.fetch("tiny", tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA and server.asked == [None]


def test_last_modified_serves_where_there_is_no_strong_tag(server, listed, tmp_path):
    server.tag, server.modified = 'W/"weak"', "Wed, 21 Oct 2015 07:28:00 GMT"
    server.cuts = [30 * resuming.CHUNK]
    fetch.fetch("tiny", tmp_path)
    assert server.asked == [None, f"bytes={30 * resuming.CHUNK}-"] and server.sent == len(DATA)
    assert (tmp_path / "a.zip").read_bytes() == DATA


@pytest.mark.parametrize("length", [20, len(DATA)])
def test_a_server_without_a_rest_has_sent_all_or_another_file(server, listed, tmp_path, length):
    part = {"url": f"{server.base}/a.zip", "version": '"v1"', "bytes": None}
    (tmp_path / "a.zip.part").write_bytes(DATA[:length])
    (tmp_path / "a.zip.part.json").write_text(json.dumps(part))
    server.statuses = [416]
    fetch.fetch("tiny", tmp_path)
    assert server.asked == [f"bytes={length}-", None][:2 - (length == len(DATA))]
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_busy_servers_are_asked_again(server, listed, tmp_path):
    server.statuses = [503, 429, 500]
    fetch.fetch("tiny", tmp_path)
    assert len(server.asked) == 4 and (tmp_path / "a.zip").read_bytes() == DATA


def test_a_server_that_always_cuts_at_one_place_is_given_up(server, listed, tmp_path):
    server.ranges, server.cuts = False, [200_000] * 50
    message = refused(tmp_path, "196,608 bytes have come and stay: the same command goes on there")
    assert len(server.asked) == resuming.TRIES + 1 and "a.zip.part" in left(tmp_path)
    assert "could not be downloaded" in message


def test_sizes_that_the_server_does_not_tell(server, listed, tmp_path):
    server.length = False
    listed({"bytes": len(DATA)})
    fetch.fetch("tiny", tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA
    (tmp_path / "a.zip").unlink()
    listed({"bytes": len(DATA) - 1})
    refused(tmp_path, "sends more than 3,071,999 bytes")
    listed({"bytes": len(DATA) + 1})
    refused(tmp_path, "has 3,072,000 bytes, the published file 3,072,001")


# --------------------------------------------------------------------------------------- refused


def test_another_size_than_the_published_one_is_refused_before_the_download(server, listed,
                                                                            tmp_path):
    listed({"bytes": 77})
    refused(tmp_path, "has 3,072,000 bytes, the published file 77: it was replaced")
    assert left(tmp_path) == []


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_a_wrong_hash_is_told_and_nothing_of_it_is_kept(server, listed, tmp_path, known):
    listed(known)
    refused(tmp_path, f"is not the published file, or was damaged.*got .*{SHA256}|{MD5}")
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_lists_what_to_download_by_hand(server, listed, tmp_path, status):
    listed({"bytes": 2_500_000_000}, {"name": "b.tar", "how": "form", "holds": "b/*.png"})
    server.statuses = [status]
    message = refused(tmp_path, f"/a.zip: {status} ")
    assert len(server.asked) == 1 and left(tmp_path) == []
    assert f"a.zip (always, 2.5 GB): a/*.jpg\n    at {server.base}/ and this name" in message
    assert "b.tar (always): b/*.png\n    by a form: https://example.org/form" in message
    assert "into the folder that --raw names" in message


def test_what_was_saved_by_hand_is_checked_against_its_published_hash(listed, tmp_path):
    listed({"how": "form", "name": "b.tar", "holds": "a/*.jpg", "sha256": SHA256})
    (tmp_path / "b.tar").write_bytes(DATA)
    assert fetch.fetch("tiny", tmp_path) == [tmp_path / "b.tar"]
    (tmp_path / "b.tar").write_bytes(DATA[:-1] + b"x")
    refused(tmp_path, "b.tar is not the published file: its sha256 is")


def test_offline_is_told_with_what_to_download_by_hand(server, listed, tmp_path):
    server.server_close()
    message = refused(tmp_path, "could not be downloaded .ConnectionError")
    assert "bytes have come" not in message and left(tmp_path) == []


@pytest.mark.parametrize(("kind", "data"), [
    ("text/html; charset=utf-8", b"anything"), ("application/zip", b"<!DOCTYPE html><html>Sign in"),
    ("", b"\n <HTML><body>Quota exceeded")])
def test_a_web_page_in_place_of_a_file_is_told(server, listed, tmp_path, kind, data):
    server.kind, server.files["/a.zip"] = kind, data
    refused(tmp_path, "sends a web page in place of a.zip: a log-in, a form or a notice")
    assert left(tmp_path) == []


def test_too_little_room_is_told_before_the_download(server, listed, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": len(DATA) - 1})
    monkeypatch.setattr(resuming.shutil, "disk_usage", lambda place: usage)
    refused(tmp_path, "a.zip needs 0.0 GB in .*, where 0.0 GB are free")
    assert left(tmp_path) == []


def test_two_downloads_of_one_file_at_once_are_refused(server, listed, tmp_path):
    with open(tmp_path / "a.zip.part", "ab") as file:
        resuming.fcntl.flock(file, resuming.fcntl.LOCK_EX)
        refused(tmp_path, "another process downloads .*a.zip: wait for it")


def test_another_range_than_the_asked_one_is_refused(server, listed, tmp_path, monkeypatch):
    part = {"url": f"{server.base}/a.zip", "version": '"v1"', "bytes": len(DATA)}
    (tmp_path / "a.zip.part").write_bytes(DATA[:1000])
    (tmp_path / "a.zip.part.json").write_text(json.dumps(part))
    monkeypatch.setattr(resuming.re, "fullmatch", lambda *_: ["", "999", "3072000"])
    with pytest.raises(PreparationError, match="asked for the rest from byte 1,000 and sends"):
        fetch.fetch("tiny", tmp_path)


# ----------------------------------------------------------------------------------- sources.yml


def test_sources_holds_every_set_and_each_how_to_names_every_file():
    assert sorted(sources.sources()) == sorted(SETS)
    for name, source in sources.sources().items():
        text = how_to_get(name)
        assert source.home in text and "--raw" in text
        assert any(file.needed == "always" for file in source.files)
        for file in source.files:
            assert f"\n  {file.name} (" in text and file.holds in text
            assert (file.url.removesuffix(file.name) if file.how == "https" else file.page) in text
    with pytest.raises(PreparationError, match="no set 'pacs' in sources.yml: choose chairv2, ci"):
        how_to_get("pacs")


def test_addresses_stand_in_sources_only(repo):
    found = {f"{file.relative_to(repo)}: {url}" for file in (repo / "data_prep").rglob("*.py")
             for url in re.findall(r"https?://[^\s\"')]*", file.read_text(encoding="utf-8"))}
    allowed = re.compile(r": (http://www\.w3\.org/2000/svg|https?://)$")
    assert {one for one in found if not allowed.search(one)} == set()
    assert len(re.findall("https://", sources.SOURCES.read_text(encoding="utf-8"))) > 30


@pytest.mark.parametrize(("change", "told"), [
    ({"url": None}, "https without url"), ({"how": "form"}, "a url that is not downloaded"),
    ({"how": "form", "url": None}, "form without page and instructions"),
    ({"bytes": 5}, "a size or a hash without its source"), ({"sha256": "12"}, "sha256"),
    ({"name": "../a.zip"}, "classes without it, or .."), ({"name": "/a.zip"}, "name"),
    ({"name": "{class}.zip"}, "without classes"), ({"classes": "quickdraw"}, "classes without it"),
    ({"url": "http://example.org"}, "url"), ({"size": 5}, "size"), ({"needed": "maybe"}, "needed")])
def test_a_wrong_entry_is_told(change, told):
    right = {"name": "a.zip", "url": "https://example.org/{name}", "how": "https", "holds": "a",
             "needed": "always"}
    assert File.model_validate(right).url == "https://example.org/a.zip"
    with pytest.raises(ValidationError, match=told):
        File.model_validate(right | change)
    with pytest.raises(ValidationError, match="names that stand twice: a.zip"):
        Source(home="https://example.org", files=[right, right])


def test_class_addresses_are_percent_encoded():
    found = {file.name: file.url for file in fetch._chosen("quickdraw", ["binary", "raw"])}
    assert len(found) == 2 * len(class_lists("quickdraw").classes)
    assert found["raw/The Eiffel Tower.ndjson"].endswith("/full/raw/The%20Eiffel%20Tower.ndjson")
    assert found["binary/teddy-bear.bin"].endswith("/full/binary/teddy-bear.bin")
    assert not any(" " in url or "_" in url.rpartition("/")[2] for url in found.values())


@pytest.mark.skipif(not (SAMPLE / "quickdraw").is_dir(), reason="no ../shared/data here")
def test_the_classes_have_the_names_of_the_official_files():
    official = {file.name for file in (SAMPLE / "quickdraw").iterdir()}
    asked = {file.name.removeprefix("simplified/")
             for file in fetch._chosen("quickdraw", ["simplified"])}
    assert asked <= official


@pytest.mark.skipif(not (SAMPLE / "annotations").is_dir(), reason="no ../shared/data here")
def test_the_hashes_of_cirr_are_those_of_the_official_files():
    known = [file for file in sources.source("cirr").files if file.sha256]
    for file in known:
        data = (SAMPLE / "annotations" / "cirr" / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    assert len(known) == 6
