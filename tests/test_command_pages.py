"""The page of the command line says what the commands say of themselves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from replication import command_pages, paths


@pytest.fixture(scope="module")
def commands():
    return command_pages.commands_markdown()


@pytest.fixture(scope="module")
def preparations():
    return command_pages.preparations_markdown()


def section(text, name):
    return text.split(f"### {name}\n")[1].split("\n### ")[0]


def test_every_command_is_there_once(commands):
    assert re.findall(r"^### (\w+)$", commands, re.MULTILINE) == [
        "run", "keep", "list", "report", "verify"]


def test_usage_names_arguments_then_options(commands):
    assert "python -m replication run NAME [OPTIONS]\n" in section(commands, "run")
    assert "python -m replication verify [TARGET ...] [OPTIONS]\n" in section(commands, "verify")


def test_options_stand_with_what_they_do_and_their_default(commands):
    verify = section(commands, "verify")
    assert "- `-o`, `--out`: folder of the report; default result/datasets/\\<set\\>." in verify
    assert re.search(r"- `--near`: bits of 64 .*\(default `4`\)\.", verify)
    assert "- `--size`: demo, or tiny for the smallest run (default `demo`)." in \
        section(commands, "run")
    assert "(default ``)" not in commands
    assert "False" not in commands and "None" not in commands and str(paths.ROOT) not in commands


def test_every_data_set_has_its_command(preparations):
    sets = {file.stem for file in (paths.BOOK / "datasets").glob("*.yml")}
    named = re.findall(r"dropdown} python -m data_prep\.(\w+)", preparations)
    assert sorted(named) == sorted(sets | {"fetch"})
    assert named[0] == "doodles"


def test_help_is_word_for_word_and_as_wide_as_said(preparations):
    assert preparations.count("usage: python -m data_prep.") == preparations.count(":::{dropdown}")
    own = preparations.split("data_prep.coco\n")[1]
    assert "--max-unpacked GB" in own and "--split {" in own
    options = [line for line in preparations.splitlines() if line.startswith("  -")]
    assert max(map(len, options)) <= int(command_pages.WIDTH)


def test_both_pages_are_written(tmp_path):
    written = command_pages.write(tmp_path, {}, {})
    assert [Path(p).name for p in written] == ["commands.md", "commands_data.md"]
    assert "### keep" in written[0].read_text() and "usage:" in written[1].read_text()


def test_neither_page_needs_torch():
    code = ("import sys; from replication import command_pages as c; c.commands_markdown(); "
            "c.preparations_markdown(); assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, check=True)
