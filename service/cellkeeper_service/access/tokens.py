"""The token file of a running server: read at the start, and again whenever it changes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from stat import S_IWOTH

from cellkeeper_service.errors import StartError
from cellkeeper_service.file_stamp import stamp_of

from .quotas import Quota
from .token_table import BadTokens, TokenTable, read_table

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 32 * 1024 * 1024


class TokenFile:
    """The token file and its current contents, `table`. If the file becomes invalid, the table stays as it was."""

    def __init__(self, path: str, default: Quota, *, counts_sessions: bool = True) -> None:
        """default: for what quota lines leave out. counts_sessions: sessions expire eventually, so that a quota of
        sessions makes sense. Raises StartError if the file cannot be read or is invalid."""
        self._path = Path(path)
        self._default = default
        self._counts_sessions = counts_sessions
        self._mode = 0
        self._wrong = ""  # the error that was logged last
        try:
            self._seen = stamp_of(self._path)
            self.table = self._read()
        except (OSError, BadTokens, UnicodeDecodeError) as error:
            advice = ""
            if isinstance(error, FileNotFoundError):
                advice = "; `cellkeeper-server token new` prints an entry for it"
            elif isinstance(error, PermissionError):
                advice = "; let the server read it"
            raise StartError(f"tokens: cannot read {path}: {error}{advice}") from error
        self._warn()

    @property
    def reload_failed(self) -> bool:
        """True if the file has changed, but cannot be used, so that the previous tokens are in force."""
        return bool(self._wrong)

    def reread(self) -> bool:
        """Reads the file if it has changed, and returns True if the table is different. Call from one thread at a time.

        An error in a changed file is logged once.
        """
        try:
            stamp = stamp_of(self._path)
            if stamp == self._seen:
                self._wrong = ""  # the previous file may be back
                return False
            table = self._read()
        except (OSError, BadTokens, UnicodeDecodeError) as error:
            if str(error) != self._wrong:
                log.error("tokens: cannot read %s, so the previous tokens stay in force: %s", self._path, error)
            self._wrong = str(error)
            return False
        self._seen, self._wrong = stamp, ""
        changed, self.table = table != self.table, table
        if changed:
            log.info("tokens: reloaded: %d tokens, %d certificates", len(table.by_digest), len(table.by_name))
            self._warn()
        return changed

    def _warn(self) -> None:
        if not self.table.by_digest and not self.table.by_name:
            log.warning(
                "tokens: %s lets nobody in; `cellkeeper-server token new` prints an entry, to be added to it",
                self._path,
            )
        if self._mode & S_IWOTH:
            log.warning("tokens: every user of this machine may add tokens to %s; chmod o-w", self._path)

    def _read(self) -> TokenTable:
        with self._path.open("rb") as file:
            self._mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise BadTokens(f"got more than {MAX_FILE_BYTES} bytes")
        table = read_table(data.decode(), self._default)
        if not self._counts_sessions and any(quota.sessions for quota in table.quotas.values()):
            raise BadTokens(
                "quota: got sessions=N without --max-ttl-ms, which says how long a used session counts; give it too"
            )
        return table
