"""Make the project's own environment, `.venv`, with the versions pinned in requirements.lock.

The Makefile runs this before everything else. A finished environment costs a few milliseconds; a
missing, interrupted, moved or outdated one is made again. Whatever stands in the way is told in
one message that says what to do.

Standard library only, and no syntax newer than Python 3.6: this file runs under whatever Python
the machine has, and an old one has to reach the message that names it.
"""

import collections
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

LOWEST = (3, 11)
HIGHEST = (3, 13)
SEARCHED = ["python3.12", "python3.13", "python3.11", "python3", "python"]
STAMP = "complete.json"
GIGABYTE = 10**9
# Linux resolves torch to its CUDA builds: 6 GB unpacked, 3 GB of downloads held twice (pip's
# temporary folder and its cache). Elsewhere torch is a CPU build.
NEEDED_GB = 12 if sys.platform.startswith("linux") else 4
DOWNLOADS = "3 GB, with the CUDA builds of torch" if NEEDED_GB > 4 else "1 GB"

PROBE = (
    "import sys, importlib.util as u; "
    "print(sys.version_info[0], sys.version_info[1], "
    "int(all(u.find_spec(m) for m in ('venv', 'ensurepip'))))"
)

NETWORK_SIGNS = (
    "Failed to establish a new connection",
    "NewConnectionError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "Name or service not known",
    "getaddrinfo failed",
    "Network is unreachable",
    "No route to host",
    "Connection refused",
    "Connection reset",
    "Connection aborted",
    "connection broken",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "timed out",
    "IncompleteRead",
    "incomplete download",
    "ProxyError",
    "SSLError",
    "CERTIFICATE_VERIFY_FAILED",
    "HTTP error",
)


class Stop(Exception):
    """The environment cannot be made; the text says why and what to do."""


def span():
    """The accepted Pythons in words, for messages: `3.11 to 3.13`."""
    return "%d.%d to %d.%d" % (LOWEST + HIGHEST)


def venv_folder(root):
    """Folder of the environment that belongs to the checkout at `root`."""
    return os.path.join(root, ".venv")


def venv_python(root):
    """Interpreter inside the environment (it may not exist yet)."""
    parts = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return os.path.join(venv_folder(root), *parts)


def child_environment():
    """This process's variables without those that would send an install somewhere else."""
    dropped = ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "__PYVENV_LAUNCHER__")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    kept["PIP_USER"] = "0"
    return kept


def digest(path):
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def wanted_state(root):
    """What a finished environment of this checkout was made from, and where it stands.

    The place counts because the scripts of an environment hold its absolute path: a moved or
    copied one does not run.
    """
    return {
        "lock": digest(os.path.join(root, "requirements.lock")),
        "project": digest(os.path.join(root, "pyproject.toml")),
        "folder": os.path.abspath(venv_folder(root)),
    }


def finished_state(root):
    """The state written by the last successful run, or {} when none finished here."""
    try:
        with open(os.path.join(venv_folder(root), STAMP)) as file:
            state = json.load(file)
    except (OSError, ValueError):
        return {}
    usable = isinstance(state, dict) and os.path.exists(venv_python(root))
    return state if usable and state.get("folder") == wanted_state(root)["folder"] else {}


def write_state(root):
    """Mark the environment as finished; written last, and moved into place."""
    path = os.path.join(venv_folder(root), STAMP)
    with open(path + ".part", "w") as file:
        json.dump(wanted_state(root), file, indent=1)
    os.replace(path + ".part", path)


def unmark(root):
    """Take the mark away before a change, so that an interrupted change is seen as one."""
    path = os.path.join(venv_folder(root), STAMP)
    if os.path.exists(path):
        os.remove(path)


def candidates(root):
    """Interpreters to try, in order: the running one, then those on PATH.

    Those inside `.venv` are left out, since it is about to be remade; an activated `.venv` is
    replaced by the interpreter it was made from.
    """
    own = os.path.abspath(venv_folder(root)) + os.sep
    names = [sys.executable, getattr(sys, "_base_executable", None)]
    names += [shutil.which(name) for name in SEARCHED]
    paths = [os.path.abspath(name) for name in names if name]
    return list(collections.OrderedDict.fromkeys(p for p in paths if not p.startswith(own)))


def probed(command):
    """Version (major, minor) of an interpreter and whether it can make environments, or None.

    None is a command that does not run, as a version manager's shim for a version not selected.
    """
    try:
        answer = subprocess.run(
            [command, "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            timeout=60,
        )
        major, minor, capable = [int(word) for word in answer.stdout.split()]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return (major, minor), bool(capable)


def usable_python(root):
    """First interpreter of an accepted version that can make environments; Stop if none."""
    bare, other = [], []
    for command in candidates(root):
        answer = probed(command)
        if answer is None:
            continue
        version, capable = answer
        if not LOWEST <= version <= HIGHEST:
            other.append("%d.%d (%s)" % (version + (command,)))
        elif not capable:
            bare.append((version, command))
        else:
            return command
    if bare:
        (major, minor), command = bare[0]
        raise Stop(
            "Python %d.%d (%s) cannot make virtual environments: its ensurepip or venv module is "
            "missing.\nOn Debian or Ubuntu: sudo apt install python%d.%d-venv\n"
            "Or name another Python, %s: make PYTHON=/path/to/python ..."
            % (major, minor, command, major, minor, span())
        )
    raise Stop(
        "Python %s is needed; found %s.\nInstall one of these (for instance python3.12 and "
        "python3.12-venv), or name it: make PYTHON=/path/to/python3.12 ..."
        % (span(), ", ".join(other) or "none")
    )


def check_disk(root):
    """Stop unless the disk that holds the checkout has room for the environment."""
    free = shutil.disk_usage(root).free / GIGABYTE
    if free < NEEDED_GB:
        raise Stop(
            "Not enough disk space: about %d GB are needed for .venv and the downloads, %.1f GB "
            "are free at %s.\nFree some space there, or move the checkout to a larger disk, and "
            "run again." % (NEEDED_GB, free, root)
        )


def make_venv(python, root):
    """An empty environment; what an interrupted run left in its folder is removed."""
    if os.path.islink(venv_folder(root)):
        raise Stop(
            "%s is a link to %s, and making the environment would empty that folder.\nRemove the "
            "link and run again." % (venv_folder(root), os.readlink(venv_folder(root)))
        )
    answer = subprocess.run(
        [python, "-m", "venv", "--clear", venv_folder(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        env=child_environment(),
    )
    if answer.returncode:
        raise Stop(
            "%s could not make %s:\n%s\nOn Debian or Ubuntu, install the package python3-venv and "
            "run again." % (python, venv_folder(root), last_lines(answer.stdout.splitlines()))
        )


def last_lines(lines, count=8):
    """The end of a program's output, indented, without pip's notes on what it passed over."""
    idle = re.compile(r"\s*$|Ignoring |.*is ignored: it is neither")
    telling = [line for line in lines if not idle.match(line)]
    return "\n".join("    " + line[:300] for line in telling[-count:])


def failure(lines, log):
    """Message for a failed pip, by what it printed after the last package it began."""
    begun = [i for i, line in enumerate(lines) if re.match(r"\s*(Collecting|Downloading) ", line)]
    end = "\n".join(lines[begun[-1] if begun else 0 :])
    if "No space left on device" in end or "Disk quota exceeded" in end:
        why = (
            "The disk is full. Free some space (about %d GB in all), or set TMPDIR to a folder "
            "on a larger disk, and run again." % NEEDED_GB
        )
    elif any(sign in end for sign in NETWORK_SIGNS):
        why = (
            "The package index could not be reached. Check the network, and the proxy settings "
            "(HTTPS_PROXY, pip config list), and run again: downloads that finished are kept."
        )
    elif "No matching distribution found" in end:
        why = (
            "The package index has no such version for this Python or platform. An index of "
            "your own (pip config list) may lack it; otherwise try another Python, %s: "
            "make PYTHON=/path/to/python ..." % span()
        )
    else:
        why = "pip failed; its last lines say why. Run again when it is mended."
    return "%s\nThe end of pip's output (all of it is in %s):\n%s" % (why, log, last_lines(lines))


class Progress:
    """Shows how far pip is: one rewritten line on a terminal, a line every 40 packages elsewhere.

    `total` counts the lines of the lock; pip names those that are for other platforms, and they
    are taken off.
    """

    def __init__(self, total, terminal):
        self.total, self.terminal = total, terminal
        self.begun = 0

    def see(self, line):
        """Take one line of pip's output."""
        if line.startswith("Ignoring "):
            self.total -= 1
        elif re.match(r"(Collecting|Processing|Requirement already satisfied:) ?.*==", line):
            self.begun += 1
            if self.terminal or self.begun % 40 == 0:
                self.show("  %d of %d packages" % (self.begun, self.total))
        elif line.startswith("  Downloading ") and self.terminal:
            what = line.split("/")[-1].replace("Downloading", "").strip()
            self.show("  %d of %d packages, %s" % (self.begun, self.total, what))
        elif line.startswith("Installing collected packages"):
            self.show("  all fetched; unpacking takes a minute or two")

    def show(self, text):
        """Print one state."""
        text = "\r\033[K" + text[:79] if self.terminal else text + "\n"
        sys.stdout.write(text)
        sys.stdout.flush()

    def end(self):
        """Leave the rewritten line."""
        if self.terminal:
            sys.stdout.write("\r\033[K")


def run_pip(root, arguments, total=0):
    """Run the environment's pip, its output in a log and told as progress; Stop when it fails."""
    log = os.path.join(venv_folder(root), "install.log")
    process = subprocess.Popen(
        [venv_python(root), "-m", "pip", "--disable-pip-version-check"] + arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        errors="replace",
        cwd=root,
        env=child_environment(),
    )
    lines, progress = [], Progress(total, sys.stdout.isatty())
    with process, open(log, "w") as file:
        for line in process.stdout:
            file.write(line)
            lines.append(line.rstrip())
            if total:
                progress.see(line)
    if total:
        progress.end()
    if process.returncode:
        raise Stop(failure(lines, log))


def install_lock(root):
    """Install every pinned package, by way of the user's own pip configuration."""
    with open(os.path.join(root, "requirements.lock")) as file:
        total = sum(1 for line in file if line.strip() and not line.startswith("#"))
    run_pip(root, ["install", "-r", "requirements.lock"], total)


def install_project(root):
    """Install the checkout itself, editable; nothing is fetched for it."""
    run_pip(root, ["install", "--no-deps", "--no-build-isolation", "--no-index", "-e", "."])


def make_environment(root):
    """Bring `.venv` to the state the checkout asks for, doing only what is missing."""
    wanted, finished = wanted_state(root), finished_state(root)
    if finished == wanted:
        return
    if finished:
        print("The project has changed since .venv was made: bringing it up to date.")
        unmark(root)
    else:
        python = usable_python(root)
        check_disk(root)
        if os.path.isdir(venv_folder(root)):
            print("The .venv that is here was not finished, or was moved: it is made again.")
        print(
            "Making .venv with %s: about 240 packages, %s; a few minutes, or more on a slow line."
            % (python, DOWNLOADS)
        )
        sys.stdout.flush()
        make_venv(python, root)
    if finished.get("lock") != wanted["lock"]:
        install_lock(root)
    install_project(root)
    write_state(root)
    print("The environment .venv is ready.")


def main(root):
    """Exit status of the program: 0, or 1 with one message on stderr."""
    try:
        make_environment(root)
    except Stop as stop:
        sys.stderr.write("\nThe environment could not be made. %s\n" % stop)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. The next run starts .venv again.\n")
        return 130
    return 0


if __name__ == "__main__":
    if sys.version_info < (3, 6):
        sys.exit("Python %s is needed. Name it: make PYTHON=/path/to/python3.12 ..." % span())
    sys.exit(main(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
