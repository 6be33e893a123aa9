"""Interactive use as `make lab` sets it up: a real Jupyter server, spoken to over HTTP and
websocket.

Source notebooks are saved clean, results are saved as they are, kernels are the environment's, and
an edit of a library file is seen by a running kernel.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.request import Request, urlopen

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from websocket import create_connection


class Server:
    """A Jupyter server on `root` with the project's settings, and the calls a front end makes."""

    def __init__(self, root: Path, environment: dict[str, str]):
        self.token = secrets.token_hex(16)
        self.log = root / "server.log"
        self.runtime = root / "runtime"
        variables = environment | {
            "JUPYTER_CONFIG_PATH": str(root / "jupyter"),
            "IPYTHONDIR": str(root / "jupyter" / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_PREFER_ENV_PATH": "1",
        }
        command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"]
        command += ["--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={root}"]
        command += [f"--IdentityProvider.token={self.token}"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
        self.address = self._address()

    def _address(self, seconds: float = 30) -> str:
        """`127.0.0.1:port`, from the file that a server writes when it listens."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            for path in self.runtime.glob("jpserver-*.json"):
                text = path.read_text()
                if text.endswith("}"):
                    return f"127.0.0.1:{json.loads(text)['port']}"
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()}")

    def call(self, method: str, path: str, body: dict | None = None):
        """Answer of one REST call, decoded."""
        request = Request(f"http://{self.address}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        if body is not None:
            request.data = json.dumps(body).encode()
        with urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def session(self, path: str) -> "Session":
        """A kernel for the notebook at `path`, as opened by a front end."""
        body = {"path": path, "type": "notebook", "name": "", "kernel": {"name": "python3"}}
        return Session(self, self.call("POST", "sessions", body)["kernel"]["id"])

    def stop(self):
        """End the server and its kernels."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Session:
    """One kernel's websocket."""

    def __init__(self, server: Server, kernel: str):
        self.socket = create_connection(
            f"ws://{server.address}/api/kernels/{kernel}/channels",
            header=[f"Authorization: token {server.token}"],
            timeout=60,
        )

    def execute(self, code: str) -> tuple[list, int]:
        """Outputs of a cell in the notebook format, and its execution count."""
        message = uuid.uuid4().hex
        header = {"msg_id": message, "msg_type": "execute_request", "version": "5.3"}
        header |= {"username": "", "session": message, "date": ""}
        content = {"code": code, "silent": False, "store_history": True}
        content |= {"user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        self.socket.send(json.dumps(request | {"channel": "shell", "buffers": []}))
        return self._outputs(message)

    def _outputs(self, message: str) -> tuple[list, int]:
        outputs, count = [], 0
        while True:
            answer = json.loads(self.socket.recv())
            if answer["parent_header"].get("msg_id") != message:
                continue
            kind, content = answer["msg_type"], answer["content"]
            if kind in ("stream", "display_data", "execute_result", "error"):
                outputs.append(nbformat.v4.output_from_msg(answer))
            elif kind == "execute_input":
                count = content["execution_count"]
            elif kind == "status" and content["execution_state"] == "idle":
                return outputs, count


def run_and_save(server: Server, path: str) -> nbformat.NotebookNode:
    """Open the notebook at `path`, run all its cells, save it; what was sent to be saved."""
    notebook = nbformat.from_dict(server.call("GET", f"contents/{path}")["content"])
    session = server.session(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = session.execute(cell.source)
            errors = [output for output in cell.outputs if output.output_type == "error"]
            assert not errors, f"{cell.source}\n{errors}"
    session.socket.close()
    server.call("PUT", f"contents/{path}", {"type": "notebook", "content": notebook})
    return notebook


def is_clean(path: Path) -> bool:
    """Whether a notebook on disk has neither outputs nor execution counts."""
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return all(not cell.outputs and cell.execution_count is None for cell in code)


def text(outputs: list) -> str:
    """What a cell printed."""
    return "".join(output.get("text", "") for output in outputs)


def small_notebook() -> nbformat.NotebookNode:
    """Two code cells with every kind of output that is stripped."""
    cells = [
        new_markdown_cell("# A number to change"),
        new_code_cell("steps = 3", metadata={"tags": ["parameters"]}),
        new_code_cell("print(steps)\nsteps + 1"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def book(tmp_path_factory, request) -> Path:
    """A tree like the project's: its Jupyter settings, a source notebook and a run of it."""
    root = tmp_path_factory.mktemp("project")
    repo = request.getfixturevalue("repo")
    ignored = shutil.ignore_patterns("*.sqlite*", "db", "log", "pid", "security", "startup")
    shutil.copytree(repo / "jupyter", root / "jupyter", ignore=ignored)
    for path in ("book/paper/train.ipynb", "book/paper/runs/train.ipynb", "scratch.ipynb"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(small_notebook(), root / path)
    return root


@pytest.fixture(scope="module")
def server(book):
    """The running server; a person's own kernel of the same name stands in its way."""
    intruder = book / "home" / ".local" / "share" / "jupyter" / "kernels" / "python3"
    intruder.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "a person's own", "language": "python"}
    (intruder / "kernel.json").write_text(json.dumps(spec))
    hidden = ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "XDG_DATA_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    running = Server(book, kept | {"HOME": str(book / "home")})
    yield running
    running.stop()


def test_source_notebook_is_run_and_saved_without_outputs(server, book):
    sent = run_and_save(server, "book/paper/train.ipynb")
    assert [output.output_type for output in sent.cells[2].outputs] == ["stream", "execute_result"]
    assert text(sent.cells[2].outputs) == "3\n"
    saved = nbformat.read(book / "book/paper/train.ipynb", 4)
    assert is_clean(book / "book/paper/train.ipynb")
    assert [cell.source for cell in saved.cells] == [cell.source for cell in sent.cells]
    assert [cell.id for cell in saved.cells] == [cell.id for cell in sent.cells]
    assert saved.cells[1].metadata.tags == ["parameters"]


def test_changed_number_is_saved(server, book):
    path = "book/paper/train.ipynb"
    notebook = nbformat.from_dict(server.call("GET", f"contents/{path}")["content"])
    notebook.cells[1].source = "steps = 4"
    notebook.metadata.language_info = {"name": "python", "version": "3.11.7"}
    server.call("PUT", f"contents/{path}", {"type": "notebook", "content": notebook})
    saved = nbformat.read(book / path, 4)
    assert saved.cells[1].source == "steps = 4"
    assert saved.metadata.language_info == {"name": "python"}


@pytest.mark.parametrize("path", ["book/paper/runs/train.ipynb", "scratch.ipynb"])
def test_results_and_other_notebooks_keep_their_outputs(server, book, path):
    sent = run_and_save(server, path)
    saved = nbformat.read(book / path, 4)
    assert saved.cells[2].outputs == sent.cells[2].outputs
    assert saved.cells[2].execution_count == sent.cells[2].execution_count


def test_kernel_is_the_environments_and_sees_library_edits(server, book):
    package = book / "library"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text("def margin():\n    return 1\n")
    session = server.session("book/paper/train.ipynb")
    session.execute(f"import sys; sys.path.insert(0, {str(book)!r})")
    assert text(session.execute("print(sys.prefix)")[0]).strip() == sys.prefix
    session.execute("from library.losses import margin")
    assert text(session.execute("print(margin())")[0]) == "1\n"
    (package / "losses.py").write_text("def margin():\n    return 1 + 41\n")
    assert text(session.execute("print(margin())")[0]) == "42\n"
    session.socket.close()
