"""`cellkeeper stream`: sends a file through a session and prints the predictions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from os.path import isfile, sameopenfile
from typing import Any, TextIO

from numpy.typing import ArrayLike

from .._session.named_inputs import inputs_of
from ..client import Client, Session
from ..errors import HistoryChanged, HistoryLost, InvalidArgument
from ..position import first_position
from ..types import Array
from .csv_rows import add_header, csv_rows
from .ending import Ending, Interrupted
from .json_rows import json_rows
from .rows import RowError, is_file, open_rows
from .terminal import Progress

FILE_WINDOW_STEPS = 64
JSON_ENDINGS = (".json", ".jsonl", ".ndjson")


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "stream",
        parents=[shared],
        help="send the rows of a file as time steps and print the predictions",
        description="Row r of the input is time step --from-step + r of the session. Ctrl-C or SIGTERM ends a run once "
        "the rows that were sent are answered and printed; a second one ends it at once. If a run is interrupted, "
        "start it again with --resume: rows that the session has already consumed are compared, then skipped.",
    )
    parser.add_argument("model_name", nargs="?", metavar="MODEL", help="optional while exactly one model is served")
    parser.add_argument("--model", default="", help="the same, as an option")
    parser.add_argument("--session", required=True, help="its id; the session is created if it does not exist")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--csv", metavar="FILE", help="rows from a CSV file; - is stdin (the default)")
    source.add_argument(
        "--jsonl", metavar="FILE", nargs="?", const="-", help="rows from JSON lines; the first line fixes the keys"
    )
    parser.add_argument("--columns", default="", help="names, or numbers from 0, separated by commas (default: all)")
    add_header(parser)
    parser.add_argument("--output", metavar="FILE", default="-", help="where predictions go (default: stdout)")
    parser.add_argument("--format", choices=("csv", "jsonl"), help="of the output (default: that of the input)")
    parser.add_argument("--from-step", type=int, metavar="N", help="the first row is time step N of the session")
    parser.add_argument("--resume", action="store_true", help="skip the rows that the session has already consumed")
    parser.add_argument(
        "--unchecked",
        action="store_true",
        help="with --resume: do not compare the skipped rows (after a fork, for instance, or if --from-step is not "
        "where the session started)",
    )
    parser.add_argument("--ttl", type=float, metavar="SECONDS", help="delete the session after this much idle time")
    parser.add_argument(
        "--window",
        type=int,
        metavar="STEPS",
        help=f"rows to send ahead of the answers (default: {FILE_WINDOW_STEPS} for a file; 1 for a pipe or a "
        "terminal, so that each row is answered before the next is read)",
    )
    parser.add_argument(
        "--chunk-steps",
        type=int,
        default=1,
        metavar="STEPS",
        help="rows to send together; their answers arrive together too",
    )
    parser.set_defaults(run=_run, hint=_hint)


def _hint(words: Sequence[str]) -> str:
    """Returns what to do with the first of these words that may be a file; empty: none of them is."""
    for word in words:
        if not word.startswith("-") and isfile(word):
            option = "--jsonl" if word.lower().endswith(JSON_ENDINGS) else "--csv"
            return f"; {option} {word} sends the rows of this file"
    return ""


def _run(client: Client, parsed: argparse.Namespace) -> None:
    if parsed.model and parsed.model_name and parsed.model != parsed.model_name:
        raise ValueError(f"MODEL {parsed.model_name!r} and --model {parsed.model!r} differ; give one")
    if parsed.from_step is not None and parsed.from_step < 0:
        raise ValueError(f"--from-step: got {parsed.from_step}, expected 0 or more")
    if parsed.jsonl and parsed.header:
        raise ValueError("--header: applies to CSV only; JSON lines have no header")
    with ExitStack() as stack:
        path = parsed.jsonl or parsed.csv or "-"
        lines = stack.enter_context(open_rows(path))
        try:
            session = client.session(parsed.session, model=parsed.model_name or parsed.model, ttl=parsed.ttl)
        except InvalidArgument as error:
            if error.field == "model" and (hint := _hint([parsed.model_name or ""])):
                raise InvalidArgument(f"{error.message}{hint}", reason=error.reason, field=error.field) from error
            raise
        columns = [name.strip() for name in parsed.columns.split(",") if name.strip()]
        model = session.model
        read = json_rows(lines, columns, model) if parsed.jsonl else csv_rows(lines, columns, model, parsed.header)
        rows = _UntilError(_from_position(session, read, parsed))
        out = sys.stdout if parsed.output == "-" else stack.enter_context(open(parsed.output, "a", encoding="utf-8"))
        if is_file(lines) and sameopenfile(lines.fileno(), 1 if parsed.output == "-" else out.fileno()):
            raise ValueError("--output: the predictions would go to the file that the rows come from, and become rows")
        headed = parsed.output != "-" and out.tell() > 0  # a run that continues in the same file
        writer = _Writer(out, parsed.format or ("jsonl" if parsed.jsonl else "csv"), headed)
        progress = Progress("rows")
        window = parsed.window if parsed.window is not None else FILE_WINDOW_STEPS if is_file(lines) else 1
        ending = stack.enter_context(Ending())
        sent = ending.rows(iter(rows))
        outputs = session.stream(sent, window=window, chunk_steps=parsed.chunk_steps)
        first = session.position.step
        for step, output in enumerate(outputs, first):
            writer.write(step, output)
            progress.at(step + 1 - first)
        progress.end()
        if rows.error is not None:
            raise rows.error
        if ending.came:
            raise Interrupted(ending.came)


def _from_position(session: Session, rows: Iterable[ArrayLike], parsed: argparse.Namespace) -> Iterator[ArrayLike]:
    """Returns the rows that the session has not consumed. Raises HistoryChanged or HistoryLost if they do not fit."""
    stands, source = session.position, iter(rows)
    first = parsed.from_step
    if not parsed.resume:
        if first is not None and first != stands.step:
            text = f"--from-step: got {first}, but the session is at step {stands.step}; use --resume"
            raise HistoryChanged(text, reason="HISTORY_CHANGED")
        return source
    first = 0 if first is None else first
    if stands.step < first:
        text = f"the session is at step {stands.step}, before --from-step {first}: rows are missing"
        raise HistoryLost(text, reason="HISTORY_LOST")
    inputs, skipped = inputs_of(session.model), bytearray()
    for index in range(stands.step - first):
        row = next(source, None)
        if row is None:
            text = f"the session has consumed {stands.step - first} rows, but the input has only {index}"
            raise HistoryChanged(text, reason="HISTORY_CHANGED")
        skipped += inputs.convert(row)[0]
    if not parsed.unchecked:
        expected = first_position(stands.generation, first).advance(bytes(skipped), inputs.step_bytes)
        if expected != stands:
            text = "the rows to skip are not those that the session consumed; --unchecked skips them anyway"
            if first:
                text = (
                    f"the rows to skip are not those that the session consumed, or it did not start at --from-step "
                    f"{first}, so that they cannot be compared without those before; --unchecked skips them anyway"
                )
            raise HistoryChanged(text, reason="HISTORY_CHANGED")
    return source


class _Writer:
    """Writes one line for each time step: its number, then the output's values. headed: `out` has a header already."""

    def __init__(self, out: TextIO, form: str, headed: bool) -> None:
        self._out = out
        self._form = form
        self._headed = headed

    def write(self, step: int, output: Array) -> None:
        """Writes one time step. step: how many time steps the session had consumed before it."""
        if self._form == "jsonl":
            self._out.write(json.dumps({"step": step, "prediction": output.reshape(-1).tolist()}) + "\n")
        else:
            values = [str(value) for value in output.reshape(-1)]
            if not self._headed:
                self._out.write(",".join(["step", *(f"prediction_{index}" for index in range(len(values)))]) + "\n")
                self._headed = True
            self._out.write(",".join([str(step), *values]) + "\n")
        self._out.flush()


class _UntilError:
    """Ends at a row that cannot be used, so that the predictions before it are still written."""

    def __init__(self, rows: Iterator[ArrayLike]) -> None:
        self._rows = rows
        self.error: RowError | None = None

    def __iter__(self) -> Iterator[ArrayLike]:
        try:
            yield from self._rows
        except RowError as error:
            self.error = error
