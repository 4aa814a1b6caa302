"""Every command on the pages in docs/ is run, or says on the page itself why not and is at least understood.

A fenced block of `console` has lines that start with `$ `, run by bash in the page's own folder, and below each what one
sees: `…` stands for anything, lines may be left out. A block of `python` is run by a process of its own. A block whose
fence says `title="…, not run by our tests"` needs what a test machine lacks; `title="…, run by tests/…"` is run there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer
from PIL import Image

from edgewright.cli import app

if TYPE_CHECKING:
    from edgewright.export.exporter import Export
    from edgewright.train.run import Run

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
FENCE = re.compile(r"^```(\w*) *(.*)$")
TITLE = re.compile(r'title="([^"]+)"')
ELSEWHERE = re.compile(r"run by (tests/[\w/]+\.py)$")
NOT_RUN = "not run by our tests"
RUN = {"console", "python"}
OPERATORS = set("();<>|&")
PORT = "8000"
START_S = 120
LONGEST_S = 300
PICTURES_PER_CLASS = 12


@dataclass(frozen=True)
class Command:
    """A line after `$ `, and the lines of output below it."""

    line: str
    output: tuple[str, ...]

    @property
    def in_background(self) -> bool:
        """Whether the shell would go on at once."""
        return self.line.endswith("&")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    number: int
    language: str
    title: str
    text: str

    @property
    def is_run(self) -> bool:
        """Whether this test runs it."""
        return self.language in RUN and not self.title

    def commands(self) -> list[Command]:
        """What a block of `console` has, lines that end in a backslash joined."""
        joined = re.sub(r"\\\n>? *", "", self.text)
        found: list[Command] = []
        for line in joined.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:].strip(), ()))
            elif line.strip():
                assert found, f"{self.page}:{self.number}: output before the first command"
                found[-1] = Command(found[-1].line, (*found[-1].output, line))
        return found


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    fence: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate((DOCS / page).read_text(encoding="utf-8").splitlines(), 1):
        if fence is None and (match := FENCE.match(line)):
            title = TITLE.search(match[2])
            fence, lines = (number, match[1], title[1] if title else ""), []
        elif fence is not None and line == "```":
            found.append(Block(page, *fence, "\n".join(lines)))
            fence = None
        elif fence is not None:
            lines.append(line)
    assert fence is None, f"{page}: a fence is not closed"
    return found


ALL = [block for page in PAGES for block in blocks(page)]


def of_edgewright(line: str) -> list[list[str]]:
    """The arguments of each `edgewright …` in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    found: list[list[str]] = []
    inside = False
    for before, word in zip(["", *words], words, strict=False):
        if word == "edgewright" and (before in ("", "-m", "run", "sudo") or set(before) <= OPERATORS):
            found.append([])
            inside = True
        elif set(word) <= OPERATORS:
            inside = False
        elif inside:
            found[-1].append(word)
    return found


def understand(arguments: list[str]) -> None:
    """Parse a command line without running it; typer raises where an option or a value does not exist."""
    command: Any = typer.main.get_command(app)
    name, rest = "edgewright", arguments
    with contextlib.ExitStack() as stack:
        context: Any = None
        while True:
            context = stack.enter_context(command.make_context(name, list(rest), parent=context))
            if not hasattr(command, "resolve_command"):
                return
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


@pytest.mark.parametrize("page", PAGES)
def test_no_command_escapes(page: str) -> None:
    for block in blocks(page):
        place = f"{page}:{block.number}"
        if block.language in RUN:
            if block.title:
                elsewhere = ELSEWHERE.search(block.title)
                assert elsewhere or block.title.endswith(NOT_RUN), (
                    f"{place}: says neither who runs it nor that nobody does"
                )
                if elsewhere:
                    lines = " ".join(command.line for command in block.commands())
                    words = re.findall(r"[\w-]+\.(?:mjs|py)\b|(?<=edgewright )\w+", lines)
                    text = (ROOT / elsewhere[1]).read_text(encoding="utf-8")
                    assert words, place
                    assert all(word in text for word in words), f"{place}: '{elsewhere[1]}' does not run this"
            if block.language == "console":
                assert block.commands(), f"{place}: no line starts with '$ '"
        else:
            for line in block.text.splitlines():
                assert not re.match(r"\s*(\$ |(sudo )?edgewright |curl |python3? -m edgewright)", line), (
                    f"{place}: {line}"
                )


def test_commands_that_cannot_be_run_here_are_understood() -> None:
    lines = [
        command.line
        for block in ALL
        if block.language == "console" and not block.is_run
        for command in block.commands()
    ]
    ours = [arguments for line in lines for arguments in of_edgewright(line)]
    assert ours
    for arguments in ours:
        understand(arguments)


def test_python_that_cannot_be_run_here_compiles() -> None:
    for block in ALL:
        if block.language == "python" and not block.is_run:
            compile(block.text, f"{block.page}:{block.number}", "exec")


def test_commands_of_the_readme_are_understood() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    fenced = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    lines = [line for line in re.sub(r"\\\n *", "", fenced).splitlines() if re.match(r"edgewright |accelerate ", line)]
    ours = [arguments for line in lines for arguments in of_edgewright(line)]
    assert len(ours) > 20
    for arguments in ours:
        understand(arguments)


def test_an_option_that_does_not_exist_is_not_understood() -> None:
    with pytest.raises(Exception, match="--no-such-option"):
        understand(["bench", "my-bundle", "--no-such-option"])


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            found = (DOCS / page).parent / path if path else DOCS / page
            assert found.exists(), f"{page}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}, target


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [page for page in PAGES if page != "README.md" and f"({page})" not in index] == []


def write_pictures(folder: Path) -> None:
    """Some of scikit-learn's digits, a folder per class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for number, pixels in enumerate(digits.images[digits.target == label][:PICTURES_PER_CLASS]):
            grey = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
            grey.convert("RGB").save(folder / str(label) / f"{number:02d}.png")


@pytest.fixture
def place(tmp_path: Path, digits_run: Run, digits_export: Export) -> Path:
    """A folder with what pages take for granted: my-pictures/, photo.png, runs/my-run, my-bundle."""
    write_pictures(tmp_path / "my-pictures")
    shutil.copy(tmp_path / "my-pictures" / "3" / "00.png", tmp_path / "photo.png")
    shutil.copytree(digits_run.folder, tmp_path / "runs" / "my-run")
    shutil.copytree(digits_export.bundle.path, tmp_path / "my-bundle")
    return tmp_path


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Session:
    """Runs the blocks of one page in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = str(free_port())
        self.log = folder / ".background"
        self.servers: list[subprocess.Popen[bytes]] = []
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "RAY"))}
        self.environment = own | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "EDGEWRIGHT_CACHE": str(folder / ".cache"),
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "no_proxy": "127.0.0.1",
        }

    def shell(self, command: Command, where: str) -> None:
        """Run one line; in the background until the page ends if it says so."""
        line = command.line.replace(PORT, self.port)
        if command.in_background:
            with self.log.open("ab") as log:
                start = ["bash", "-c", f"exec {line.rstrip('& ')}"]
                self.servers.append(
                    subprocess.Popen(start, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
                )
            self.wait_until_ready()
            return
        done = self.run(["bash", "-e", "-o", "pipefail", "-c", line])
        assert done.returncode == 0, f"{where}: $ {line}\n{done.stdout}"
        assert_shows(done.stdout.replace(self.port, PORT), command.output, f"{where}: $ {line}")

    def python(self, block: Block) -> None:
        """Run a block of Python as a script."""
        script = self.folder / f"block_{block.number}.py"
        script.write_text(block.text.replace(PORT, self.port), encoding="utf-8")
        done = self.run([sys.executable, script.name])
        assert done.returncode == 0, f"{block.page}:{block.number}\n{done.stdout}"

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, both streams in one."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=LONGEST_S,
        )

    def wait_until_ready(self) -> None:
        """Until the server that was started last answers."""
        end = time.monotonic() + START_S
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < end and self.servers[-1].poll() is None:
            with contextlib.suppress(OSError), opener.open(f"http://127.0.0.1:{self.port}/v2/health/ready", timeout=5):
                return
            time.sleep(0.1)
        raise AssertionError(f"the server is not ready:\n{self.log.read_text()}")

    def end(self) -> list[int]:
        """Ask what is in the background to end; their exit statuses."""
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
        return [server.wait(START_S) for server in self.servers]


def assert_shows(output: str, expected: tuple[str, ...], where: str) -> None:
    """Every expected line is in the output, in order; blanks count as one, `…` stands for anything."""
    printed = iter(" ".join(line.split()) for line in output.splitlines())
    for line in expected:
        if line.strip() == "…":
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in " ".join(line.split()).split("…")))
        assert any(pattern.fullmatch(found) for found in printed), f"{where}\nexpected: {line}\nfound:\n{output}"


@pytest.fixture
def session(place: Path) -> Iterator[Session]:
    """What runs a page; nothing of it is left."""
    found = Session(place)
    try:
        yield found
    finally:
        for server in found.servers:
            server.kill()
            server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.is_run for block in blocks(page))])
def test_page_does_what_it_says(page: str, session: Session) -> None:
    for block in blocks(page):
        if block.is_run and block.language == "python":
            session.python(block)
        elif block.is_run:
            for command in block.commands():
                session.shell(command, f"{page}:{block.number}")
    assert set(session.end()) <= {0}
