"""Telling a story on the terminal: headings, prose, and commands that really run, shown as one would type them.

Not here: the story; that is ``cli/tutorial.py``.
"""

import queue
import subprocess
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from muster.cli.failure import CommandError
from muster.cli.output import printable

WIDTH = 96
COMMAND_SECONDS = 120.0


class Narrator:
    """Prints the story and runs its commands in ``directory`` with ``environment``."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self._environment = dict(environment)
        self._step = 0
        self._at_heading = True

    def step(self, title: str) -> None:
        """Begin the next numbered step."""
        self._step += 1
        heading = f"Step {self._step}: {title}"
        print(f"\n{heading}\n{'-' * len(heading)}")
        self._at_heading = True

    def say(self, text: str) -> None:
        """A paragraph."""
        if not self._at_heading:
            print()
        print(textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False))
        self._at_heading = False

    def show(self, command: str) -> None:
        """A command as one types it, before it runs or when what it does was done already."""
        print(f"\n  $ {command}", flush=True)
        self._at_heading = False

    def run(
        self,
        command: str,
        arguments: Sequence[str],
        *,
        expected: int = 0,
        quiet: bool = False,
        place: str = ".",
        advice: str = "",
    ) -> str:
        """Show ``command``, run ``arguments``, pass on what they print and give it back.

        ``place`` is a directory below this one. With ``quiet`` the output is shown only when the command fails.
        Raises CommandError, with ``advice``, when it does not end with the ``expected`` exit code, or not in time.
        """
        self.show(command)
        process = self._start(arguments, subprocess.STDOUT, place)
        timer = threading.Timer(COMMAND_SECONDS, process.kill)
        timer.start()
        lines: list[str] = []
        try:
            for line in _lines(process.stdout):
                lines.append(line)
                if not quiet:
                    print(f"  {line}", flush=True)
            code = process.wait()
        finally:
            timer.cancel()
            stop(process)
        if code != expected:
            shown = "".join(f"\n  {line}" for line in lines) if quiet else ""
            raise CommandError(f"`{command}` ended with exit code {code} instead of {expected}{shown}", advice)
        return "\n".join(lines)

    def start(self, command: str, arguments: Sequence[str], ready: str) -> subprocess.Popen[str]:
        """Show ``command`` and leave it running in the background once its standard error has the line ``ready``.

        Raises CommandError when it ends before that.
        """
        self.show(command)
        process = self._start(arguments, subprocess.PIPE)
        said: list[str] = []
        for line in _lines(process.stderr):
            said.append(line)
            if line.startswith(ready):
                return process
        stop(process)
        raise CommandError(f"`{command}` ended before it was ready: {' '.join(said)}")

    def accompany(self, command: str, arguments: Sequence[str]) -> "Companion":
        """Show ``command`` and leave it running beside the story, which shows what it prints when it has come to it."""
        self.show(command)
        return Companion(command, self._start(arguments, subprocess.STDOUT))

    def ask(self, arguments: Sequence[str]) -> str | None:
        """What a command prints on standard output, without telling of it; None when it fails."""
        process = self._start(arguments, subprocess.DEVNULL)
        output = finish(process, COMMAND_SECONDS)
        return output if process.returncode == 0 else None

    def _start(self, arguments: Sequence[str], errors: int, place: str = ".") -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(  # noqa: S603 - the story names the commands, without a shell
                arguments,
                cwd=self.directory / place,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise CommandError(f"cannot run {arguments[0]}: {error.strerror}") from error


class Companion:
    """A command that runs beside the story. Ended when the ``with`` block is left."""

    def __init__(self, command: str, process: subprocess.Popen[str]) -> None:
        self._command = command
        self._process = process
        self._said: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in _lines(self._process.stdout):
            self._said.put(line)
        self._said.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._reader.join()
        stop(self._process)

    def tell(self, beginning: str, seconds: float, *, quiet: bool = False) -> str:
        """Show what it printed until a line with this ``beginning``, which is returned.

        Raises CommandError when it ends before that, or does not print it within ``seconds``.
        """
        until = time.monotonic() + seconds
        said: list[str] = []
        while True:
            try:
                line = self._said.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                shown = "".join(f"\n  {one}" for one in said)
                raise CommandError(f"`{self._command}` did not print `{beginning}`, but{shown or ' nothing'}")
            said.append(line)
            if not quiet:
                print(f"  {line}", flush=True)
            if line.startswith(beginning):
                return line

    def end(self, seconds: float) -> int | None:
        """Its exit code, once it ends by itself; None when it does not in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def finish(process: subprocess.Popen[str], seconds: float) -> str | None:
    """What a background command printed, once it ended; None when it does not end in time."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        stop(process)
        return None
    return output


def stop(process: subprocess.Popen[str]) -> None:
    """End a process that may still run, and release its pipes."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _lines(pipe: IO[str] | None) -> Iterator[str]:
    for line in pipe or ():
        yield printable(line.rstrip("\n"))
