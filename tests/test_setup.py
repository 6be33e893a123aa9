"""The way from a fresh checkout to a working environment, and the checks at the end of `.ci/run`.

Nothing is installed here: interpreters and pip are stubs, and what stands in the way is simulated.
"""

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import bootstrap
import check_book
import check_pages
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PIP_WORKS = """
Collecting numpy==2.4.0 (from -r requirements.lock (line 1))
Installing collected packages: numpy
Successfully installed numpy-2.4.0
"""
UNREACHABLE = """
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after \
connection broken by 'NewConnectionError('<HTTPSConnection>: Failed to establish a new connection: \
[Errno -3] Temporary failure in name resolution')': /simple/numpy/
ERROR: Could not find a version that satisfies the requirement numpy==2.4.0 (from versions: none)
ERROR: No matching distribution found for numpy==2.4.0
"""
CUT = """
Collecting torch==2.15.0
  Downloading torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl (530.2 MB)
ERROR: Exception:
pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool: Read timed out.
"""
UNKNOWN_VERSION = """
ERROR: Could not find a version that satisfies the requirement torch==9.9 (from versions: 2.9.0)
ERROR: No matching distribution found for torch==9.9
"""
RECOVERED_THEN_FULL = """
WARNING: Retrying (Retry(total=4)) after connection broken by 'ReadTimeoutError("Read timed out.")'
Collecting torch==2.15.0
ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device
"""
RECOVERED_THEN_BROKEN = """
WARNING: Retrying (Retry(total=4)) after connection broken by 'ReadTimeoutError("Read timed out.")'
Collecting throttler==1.2.3
ERROR: Failed building wheel for throttler
"""


def script(path, body):
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


class Machine:
    """A checkout on a machine whose only Python is a stub.

    The stub answers the version probe, and as `-m venv` it makes a folder whose interpreter is
    the pip stub; `pip(...)` says what that pip prints and how it ends.
    """

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.root = folder / "checkout"
        self.root.mkdir()
        (self.root / "requirements.lock").write_text("numpy==2.4.0\n")
        (self.root / "pyproject.toml").write_text("[project]\n")
        self.pythons(("python3", "3 11 1"))
        self.pip(PIP_WORKS)

    def pythons(self, *answers):
        """Put interpreters on the machine: (name, answer to the probe) each, in search order."""
        venv = f'rm -rf "$4"; mkdir -p "$4/bin"; cp "{self.folder}/pip" "$4/bin/python"'
        body = 'case "$1" in -c) {answer};; -m) echo venv >> "{calls}"; {venv};; esac\n'
        paths = []
        for name, answer in answers:
            answer = f"echo {answer}" if answer else "exit 127"
            text = body.format(answer=answer, calls=self.folder / "calls", venv=venv)
            paths.append(script(self.folder / "bin" / name, text))
        self.monkeypatch.setattr(bootstrap, "candidates", lambda root: paths)

    def pip(self, output, status=0):
        """Say what pip prints and its exit status, in environments made from now on."""
        calls = self.folder / "calls"
        lines = f'shift 3; echo "pip $@" >> "{calls}"; env > "{self.folder}/env"\n'
        lines += f"cat <<'END'{output}END\nexit {status}\n"
        script(self.folder / "pip", lines)

    def free_disk(self, gigabytes):
        """Leave that much room."""
        usage = SimpleNamespace(free=gigabytes * 10**9)
        self.monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: usage)

    def run(self):
        """Exit status of the bootstrap, and the commands it gave since the last run."""
        calls = self.folder / "calls"
        calls.write_text("")
        status = bootstrap.main(str(self.root))
        return status, [line.split(" requirements")[0] for line in calls.read_text().splitlines()]


LOCK, PROJECT = "pip install -r", "pip install --no-deps --no-build-isolation --no-index -e ."


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine on which all goes well."""
    made = Machine(tmp_path, monkeypatch)
    made.free_disk(100)
    return made


def test_fresh_checkout_is_set_up_once(machine, capsys):
    assert machine.run() == (0, ["venv", LOCK, PROJECT])
    assert "ready" in capsys.readouterr().out
    assert machine.run() == (0, [])
    assert capsys.readouterr().out == ""


def test_finished_environment_needs_no_disk_and_no_other_python(machine):
    machine.run()
    machine.free_disk(0)
    machine.pythons(("python3", "3 8 1"))
    assert machine.run() == (0, [])


@pytest.mark.parametrize("version", ["3 8 1", "3 10 1", "3 14 1", "2 7 0"])
def test_python_of_another_version_is_named(machine, capsys, version):
    machine.pythons(("python3", version))
    assert machine.run() == (1, [])
    error = capsys.readouterr().err
    number = version[:-2].replace(" ", ".")
    assert f"Python 3.11 to 3.13 is needed; found {number} ({machine.folder}/bin/python3)" in error
    assert "make PYTHON=" in error


def test_no_python_that_runs(machine, capsys):
    machine.pythons(("python3", None))
    assert machine.run()[0] == 1
    assert "found none" in capsys.readouterr().err


def test_first_fitting_python_is_taken(machine):
    passed_over = [("python3", "3 8 1"), ("shim", None), ("bare", "3 12 0")]
    machine.pythons(*passed_over, ("python3.13", "3 13 1"))
    assert bootstrap.usable_python(str(machine.root)).endswith("bin/python3.13")


def test_missing_venv_module_names_the_package(machine, capsys):
    machine.pythons(("python3", "3 11 0"))
    assert machine.run() == (1, [])
    error = capsys.readouterr().err
    assert "sudo apt install python3.11-venv" in error
    assert "ensurepip" in error


def test_failing_venv_is_told(machine, capsys):
    fails = '[ "$1" = -c ] && echo 3 11 1 || { echo why; exit 1; }'
    script(machine.folder / "bin" / "python3", fails)
    assert machine.run()[0] == 1
    assert re.search(r"could not make .*\n +why\n", capsys.readouterr().err)


def test_the_probe_understands_a_real_interpreter():
    answer = bootstrap.probed(sys.executable)
    assert answer is not None
    assert answer[0] == sys.version_info[:2]


def test_interpreters_of_the_environment_itself_are_passed_over(tmp_path, monkeypatch):
    inside = script(tmp_path / ".venv" / "bin" / "python3", "")
    outside = script(tmp_path / "bin" / "python3.12", "")
    monkeypatch.setattr(bootstrap.sys, "executable", inside)
    monkeypatch.setattr(bootstrap.sys, "_base_executable", outside, raising=False)
    monkeypatch.setenv("PATH", os.path.dirname(inside))
    assert bootstrap.candidates(str(tmp_path)) == [outside]


def test_too_little_disk_stops_before_anything_is_made(machine, capsys):
    machine.free_disk(2.5)
    assert machine.run() == (1, [])
    error = capsys.readouterr().err
    assert f"about {bootstrap.NEEDED_GB} GB are needed" in error
    assert "2.5 GB are free" in error


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (UNREACHABLE, "The package index could not be reached. Check the network, and the proxy"),
        (CUT, "The package index could not be reached."),
        (UNKNOWN_VERSION, "The package index has no such version"),
        (RECOVERED_THEN_FULL, "The disk is full. Free some space"),
        (RECOVERED_THEN_BROKEN, "pip failed; its last lines say why."),
    ],
)
def test_failed_pip_is_explained_and_its_end_shown(machine, capsys, output, message):
    machine.pip(output, status=1)
    assert machine.run() == (1, ["venv", LOCK])
    error = capsys.readouterr().err
    assert message in error
    assert output.splitlines()[-1] in error
    assert (machine.root / ".venv" / "install.log").read_text() == output[1:]


def test_half_made_environment_is_started_again(machine):
    machine.pip(UNREACHABLE, status=1)
    machine.run()
    (machine.root / ".venv" / "half").touch()
    machine.pip(PIP_WORKS)
    assert machine.run() == (0, ["venv", LOCK, PROJECT])
    assert not (machine.root / ".venv" / "half").exists()
    assert machine.run() == (0, [])


def test_environment_elsewhere_is_not_emptied_through_a_link(machine, capsys):
    others = machine.folder / "others"
    others.mkdir()
    (others / "kept").touch()
    (machine.root / ".venv").symlink_to(others)
    assert machine.run() == (1, [])
    assert (others / "kept").exists()
    assert "Remove the link and run again" in capsys.readouterr().err


def test_changed_lock_is_installed_into_the_same_environment(machine):
    machine.run()
    (machine.root / "requirements.lock").write_text("numpy==2.5.0\n")
    assert machine.run() == (0, [LOCK, PROJECT])


def test_changed_project_alone_fetches_nothing(machine):
    machine.run()
    (machine.root / "pyproject.toml").write_text('[project]\nversion = "2"\n')
    assert machine.run() == (0, [PROJECT])


def test_interrupted_change_is_started_again(machine):
    machine.run()
    (machine.root / "requirements.lock").write_text("numpy==2.5.0\n")
    script(machine.root / ".venv" / "bin" / "python", "exit 1")
    assert machine.run()[0] == 1
    assert machine.run() == (0, ["venv", LOCK, PROJECT])


def test_moved_checkout_gets_its_own_environment(machine):
    machine.run()
    machine.root = machine.root.rename(machine.folder / "elsewhere")
    assert machine.run() == (0, ["venv", LOCK, PROJECT])


def test_environment_whose_python_is_gone_is_made_again(machine):
    machine.run()
    (machine.root / ".venv" / "bin" / "python").unlink()
    assert machine.run() == (0, ["venv", LOCK, PROJECT])


def test_installs_go_to_the_environment_whatever_the_persons_settings(machine, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "77")
    machine.run()
    seen = (machine.folder / "env").read_text().splitlines()
    assert not [line for line in seen if line.endswith("=/elsewhere")]
    assert "PIP_USER=0" in seen
    assert "PIP_DEFAULT_TIMEOUT=77" in seen


def test_progress_counts_packages_for_this_platform(capsys):
    progress = bootstrap.Progress(82, terminal=False)
    for name in ("appnope", "pywinpty"):
        progress.see(f"Ignoring {name}: markers \"sys_platform == 'win32'\" don't match")
    for number in range(80):
        progress.see(f"Collecting package{number}==1.0 (from -r requirements.lock)\n")
        progress.see("  Downloading package-1.0-py3-none-any.whl (530.2 MB)\n")
        progress.see("Collecting a-dependency>=2 (from package)\n")
    assert capsys.readouterr().out == "  40 of 80 packages\n  80 of 80 packages\n"


def test_bootstrap_is_read_by_old_pythons(repo):
    tree = ast.parse((repo / "tools/bootstrap.py").read_text(), feature_version=(3, 6))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    names = {alias.name for node in imports for alias in node.names}
    assert names <= set(sys.stdlib_module_names)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


@pytest.fixture(scope="module")
def project(repo):
    """pyproject.toml."""
    return tomllib.loads((repo / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def lock(repo):
    """Every line of requirements.lock, parsed."""
    return [Requirement(line) for line in (repo / "requirements.lock").read_text().splitlines()]


def every_requirement(project):
    """What the project asks for: its dependencies, its extras and its build backend."""
    extras = project["project"]["optional-dependencies"].values()
    return [
        *project["project"]["dependencies"],
        *(line for extra in extras for line in extra),
        *project["build-system"]["requires"],
    ]


def test_every_line_of_the_lock_is_one_version(lock):
    for requirement in lock:
        pins = list(requirement.specifier)
        assert requirement.url is None, requirement
        assert [pin.operator for pin in pins] == ["=="], requirement
        assert "*" not in pins[0].version, requirement


def test_lock_names_no_host(repo):
    text = (repo / "requirements.lock").read_text() + (repo / "requirements.in").read_text()
    assert not re.search(r"://|^\s*-|\.(com|org|net|io)\b", text, re.M)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_dependency_has_one_fitting_pin(project, lock, python, platform):
    environment = {"python_version": python, "python_full_version": f"{python}.1"}
    environment |= {"sys_platform": platform}
    pins = {}
    for pin in lock:
        if pin.marker is None or pin.marker.evaluate(environment):
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    for wanted in map(Requirement, every_requirement(project)):
        found = pins.get(canonicalize_name(wanted.name), [])
        assert len(found) == 1, wanted
        version = next(iter(found[0].specifier)).version
        assert wanted.specifier.contains(version, prereleases=True), (str(wanted), version)


def test_what_the_lock_is_made_from_is_what_the_project_asks_for(repo, project):
    lines = (repo / "requirements.in").read_text().splitlines()
    assert sorted(line for line in lines if line[:1] != "#") == sorted(every_requirement(project))


def test_python_versions_agree_everywhere(repo, project):
    wanted = SpecifierSet(project["project"]["requires-python"])
    accepted = [minor for minor in range(6, 30) if wanted.contains(f"3.{minor}.5")]
    assert (accepted[0], accepted[-1]) == (bootstrap.LOWEST[1], bootstrap.HIGHEST[1])
    classifiers = project["project"]["classifiers"]
    named = [line.split("3.")[1] for line in classifiers if ":: Python :: 3." in line]
    assert named == [str(minor) for minor in accepted]
    conda = yaml.safe_load((repo / "environment.yml").read_text())["dependencies"]
    python = next(Requirement(line) for line in conda if str(line).startswith("python"))
    assert python.specifier == wanted
    assert project["tool"]["ruff"]["target-version"] == f"py3{accepted[0]}"


def test_conda_environment_installs_the_lock_and_the_project(repo):
    conda = yaml.safe_load((repo / "environment.yml").read_text())
    pip = next(part["pip"] for part in conda["dependencies"] if isinstance(part, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    assert "pip" in conda["dependencies"]


def test_citation_file_has_what_its_format_requires(repo, project):
    citation = yaml.safe_load((repo / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == "Image Retrieval, Replicated"
    assert citation["message"]
    assert all(author.keys() <= {"name", "website"} for author in citation["authors"])
    assert citation["version"] == project["project"]["version"]
    assert citation["license"] == project["project"]["license"]


def planned(repo, *arguments):
    """What make would run."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    answer = subprocess.run(
        ["make", "-n", *arguments], cwd=repo, check=True, capture_output=True, text=True
    )
    return answer.stdout


@pytest.mark.parametrize("target", ["book", "test", "lab", "lint"])
def test_targets_make_the_environment_first(repo, target):
    assert planned(repo, target).index("tools/bootstrap.py") < planned(repo, target).index("PATH=")


def test_book_takes_the_size_and_says_which_page_to_open(repo):
    assert "--config size=demo" in planned(repo, "book")
    assert "--config size=tiny" in planned(repo, "book", "SIZE=tiny")
    assert "/book/_build/html/index.html" in planned(repo, "book")


def test_lab_uses_the_projects_settings(repo):
    plan = planned(repo, "lab")
    assert f'JUPYTER_CONFIG_PATH="{repo}/jupyter"' in plan
    assert f'IPYTHONDIR="{repo}/jupyter/ipython"' in plan
    assert (repo / "jupyter/jupyter_server_config.py").is_file()
    assert (repo / "jupyter/ipython/profile_default/ipython_config.py").is_file()


def test_missing_python_is_one_message(repo):
    planned(repo)
    answer = subprocess.run(
        ["make", "setup", "PYTHON=python-that-is-not-there"],
        cwd=repo, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode != 0
    assert "python-that-is-not-there was not found. Python 3.11 to 3.13 is needed" in answer.stderr


def test_ci_script_runs_and_fails_on_the_first_fault(repo):
    path = repo / ".ci/run"
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert "set -euo pipefail" in text
    steps = ["command -v apt-get", "make test", "make book SIZE=tiny", "tools/check_book.py",
             "tools/check_pages.py", "Nothing to be done", "jupyter-book build book",
             "passed|failed"]
    assert [text.index(step) for step in steps] == sorted(map(text.index, steps))


def test_ci_script_without_a_browser_says_what_to_install(repo, tmp_path):
    for name in ("bash", "dirname", "mktemp", "rm", "id"):
        (tmp_path / name).symlink_to(shutil.which(name))
    answer = subprocess.run([repo / ".ci/run"], env={"PATH": str(tmp_path)}, capture_output=True,
                            text=True)  # fmt: skip
    assert answer.returncode == 1
    assert "Install Chromium or Chrome" in answer.stderr


def test_ci_script_looks_for_the_browsers_that_the_pages_are_looked_at_with(repo):
    (names,) = re.findall(r"^for name in .* do$", (repo / ".ci/run").read_text(), re.M)
    assert names.split()[4:-1] == [*check_pages.BROWSERS[:-1], f"{check_pages.BROWSERS[-1]};"]


@pytest.fixture
def built(tmp_path):
    """A small built book without a fault."""
    html = tmp_path / "_build" / "html"
    (html / "acnet").mkdir(parents=True)
    (html / "_static").mkdir()
    (html / "_static" / "style.css").touch()
    (tmp_path / "_build" / "sphinx.log").write_text("\x1b[01mbuild succeeded.\x1b[39m\n")
    (html / "index.html").write_text(
        '<link href="_static/style.css?v=1"><a href="acnet/train.html#results">results</a>'
        '<a href="#">up</a><a href="https://example.com/gone">elsewhere</a>'
        '<img src="data:image/png;base64,AAAA"><h1 id="top-of-book">Book</h1>'
    )
    (html / "acnet" / "train.html").write_text(
        '<a href="../index.html#top-of-book">back</a><section id="results">0.5</section>'
    )
    toc = {"format": "jb-book", "root": "index"}
    toc["parts"] = [{"caption": "Papers", "chapters": [{"file": "acnet/train"}]}]
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    return tmp_path


def test_book_without_fault_passes(built, capsys):
    assert check_book.main(built) == 0
    assert "no dead link" in capsys.readouterr().out


def add(book, html):
    """Append to a page of the built book."""
    with open(book / "_build/html/acnet/train.html", "a") as file:
        file.write(html)


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="../gone.html">x</a>', "../gone.html leads to no file"),
        ('<img src="../_static/gone.png">', "../_static/gone.png leads to no file"),
        ('<a href="../index.html#gone">x</a>', "#gone names no place"),
        ('<a href="#gone">x</a>', "#gone names no place"),
        ('<a href="../../../_toc.yml">x</a>', "_toc.yml leads to no file"),
        ('<div class="output traceback highlight">E</div>', "shows a traceback"),
        ("<pre><span>Traceback</span> (most recent <b>call</b> last)</pre>", "shows a traceback"),
    ],
)
def test_fault_of_a_page_is_found(built, html, fault):
    add(built, html)
    found = check_book.faults(built)
    assert len(found) == 1
    assert found[0].startswith("acnet/train.html: ")
    assert fault in found[0]
    assert check_book.main(built) == 1


def test_missing_page_is_found_at_any_depth(built):
    toc = yaml.safe_load((built / "_toc.yml").read_text())
    toc["parts"][0]["chapters"][0]["sections"] = [{"file": "acnet/runs/paper.ipynb"}]
    (built / "_toc.yml").write_text(yaml.safe_dump(toc))
    (found,) = check_book.faults(built)
    assert "acnet/runs/paper.ipynb has no page" in found


@pytest.mark.parametrize(
    "line",
    [
        "/book/index.md:3: \x1b[31mWARNING: local id not found\x1b[39m [myst.xref_missing]",
        "ERROR: Unexpected indentation.",
        "Traceback (most recent call last):",
    ],
)
def test_complaint_of_the_build_is_found(built, line):
    log = built / "_build" / "sphinx.log"
    log.write_text(f"reading sources...\n{line}\n")
    (found,) = check_book.faults(built)
    assert "sphinx.log:2: " in found
    assert "\x1b" not in found


def test_missing_log_is_a_fault(built):
    (built / "_build" / "sphinx.log").unlink()
    (found,) = check_book.faults(built)
    assert "there is no log" in found


def test_book_that_was_never_built_is_a_fault(built):
    shutil.rmtree(built / "_build")
    assert check_book.main(built) == 1
