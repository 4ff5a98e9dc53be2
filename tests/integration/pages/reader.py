"""Does what a page says: saves files, starts servers, runs blocks in order, and compares their output."""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

from testing.forked_server import ForkedServer
from testing.page import Block, blocks

TARGET = "localhost:50051"
REDIS_PORT = "6379"
SERVE = "cellkeeper-server serve "
DEFAULT_STORE = "sqlite:cellkeeper-data/sessions.db"
SHELL_TIMEOUT_S = 90.0


class Reader:
    """Works in the current folder.

    target: the server that exists before the page starts one. redis_port: for the Redis server that a page may start.
    """

    def __init__(self, page: Path, target: str, redis_port: int) -> None:
        self.page, self.target, self.redis_port = page, target, redis_port
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self._server: ForkedServer | None = None
        self._stack = ExitStack()
        self._loop = asyncio.new_event_loop()  # shared by all blocks of the page, as in a notebook

    def read(self) -> None:
        """Runs the page. Raises AssertionError if a block's output differs from the page's, and what a block raises."""
        with self._stack:
            self._stack.callback(self._loop.close)
            if f"--port {REDIS_PORT}" in self.page.read_text():
                self._stack.callback(self._end_redis)
            for block in blocks(self.page):
                if not block.not_run:
                    self._do(block)

    def _do(self, block: Block) -> None:
        text = block.text.replace(TARGET, self.target).replace(REDIS_PORT, str(self.redis_port))
        if block.title:
            Path(block.title).write_text(text)
        elif block.language == "stop":
            assert self._server is not None, f"{self._where(block)}: no server runs"
            assert self._server.stop() == 0
        elif block.language == "python":
            self._compare(block, self._python(block, text))
        elif text.startswith(SERVE):
            self._serve(shlex.split(text)[2:])
        elif block.language == "sh":
            self._compare(block, self._shell(block, text))

    def _python(self, block: Block, text: str) -> str:
        source = "\n" * block.line + text  # so that a traceback shows the page's lines
        code = compile(source, str(self.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with redirect_stdout(io.StringIO()) as printed:
            result = eval(code, self.namespace)
            if inspect.iscoroutine(result):
                self._loop.run_until_complete(result)
        return printed.getvalue()

    def _shell(self, block: Block, text: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CELLKEEPER_")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        environment["CELLKEEPER_ENDPOINT"] = self.target
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SHELL_TIMEOUT_S,
        )
        assert ran.returncode == 0, f"{self._where(block)}: exit status {ran.returncode}\n{ran.stdout}"
        return ran.stdout

    def _serve(self, words: list[str]) -> None:
        """Starts the page's server, in place of the previous one."""
        bundles, options = words, []
        for number, word in enumerate(words):
            if word.startswith("--"):
                bundles, options = words[:number], words[number:]
                break
        store = DEFAULT_STORE
        if "--store" in options:
            at = options.index("--store")
            store = options[at + 1]
            del options[at : at + 2]
        folders = [Path(bundle) for bundle in bundles]
        if self._server is None:
            self._server = self._stack.enter_context(ForkedServer(folders, store, options))
        else:
            if self._server.running:
                assert self._server.stop() == 0
            self._server.bundles, self._server.store, self._server.options = folders, store, options
            self._server.restart()
        self.target = self._server.target

    def _end_redis(self) -> None:
        """Stops the Redis server of a page that failed; otherwise none is running."""
        command = ["redis-cli", "-p", str(self.redis_port), "shutdown", "nosave"]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def _compare(self, block: Block, printed: str) -> None:
        if block.output is None:
            return
        pattern = "[^\n]*".join(re.escape(part) for part in _tidy(block.output).split("..."))
        matches = re.fullmatch(pattern, _tidy(printed))
        assert matches, f"{self._where(block)} printed\n{printed}\nand the page says\n{block.output}"

    def _where(self, block: Block) -> str:
        return f"{self.page.name}:{block.line}"


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
