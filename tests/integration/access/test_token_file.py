"""The token file: what is accepted, what is refused and how, and that the file is read again when it changes."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest
from cellkeeper_service.access.command import new_token, token_line
from cellkeeper_service.access.quotas import Quota
from cellkeeper_service.access.rights import Right
from cellkeeper_service.access.token_table import BadTokens, read_table
from cellkeeper_service.access.tokens import TokenFile
from cellkeeper_service.errors import StartError

from tests.integration.program.launch import program

HASH = "ab" * 32
PATIENCE_S = 10.0


def test_a_token_is_found_by_its_hash_alone() -> None:
    token = new_token()
    line = token_line(token, "acme", "step,read", "2027-01-31T00:00:00Z")
    assert token not in line
    table = read_table(f"# ours\n\n{line}  # the pumps\n", Quota())
    grant = table.of_token(token)
    assert grant is not None
    assert (grant.tenant, grant.rights, grant.expires) == ("acme", frozenset({Right.STEP, Right.READ}), 1801353600.0)
    assert table.of_token(token + "x") is None
    assert table.holds(grant)
    assert not read_table("", Quota()).holds(grant)


def test_a_hash_may_have_capital_letters() -> None:
    token = new_token()
    line = token_line(token, "acme", "step")
    name, _, digest = line.rpartition("=")
    assert read_table(f"{name}={digest.upper()}", Quota()).of_token(token) is not None
    with pytest.raises(BadTokens, match="in two entries"):
        read_table(f"{line}\n{name}={digest.upper()}", Quota())


@pytest.mark.parametrize("separator", [" ", "#", "\t", "\u2003", "\n"])
def test_a_new_line_is_one_that_the_file_may_have(separator: str) -> None:
    with pytest.raises(BadTokens, match="expires: got"):
        token_line("t", "acme", "step", f"2027-01-31{separator}00:00:00+00:00")


def test_quotas_leave_to_the_default_what_they_do_not_say() -> None:
    table = read_table("quota tenant=acme inflight=7\nquota tenant= sessions=0", Quota(5, 6, 8))
    assert table.quotas == {"acme": Quota(5, 6, 7), "": Quota(0, 6, 8)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tokens", "'tokens', expected token, certificate, quota"),
        (f"token tenant=a rights=step sha256={HASH[:-1]}", "sha256: got 63 characters"),
        (f"token tenant=a rights=write sha256={HASH}", "rights: got 'write', expected some of step, read, admin"),
        (f"token tenant=a rights= sha256={HASH}", "rights: got ''"),
        (f"token tenant=a/b rights=step sha256={HASH}", "tenant: got 'a/b'"),
        (f"token rights=step sha256={HASH}", "got no tenant="),
        (f"token tenant=a rights=step sha256={HASH} expires=2027-01-31", "expires: got '2027-01-31'"),
        (f"token tenant=a tenant=b rights=step sha256={HASH}", "the word 'tenant'"),
        (f"token tenant=a rights=step sha256={HASH} {HASH}", "expected each of"),
        ("quota tenant=a sessions=-1", "sessions: got '-1'"),
        (f"quota tenant=a steps_per_second=1{'0' * 12}", "steps_per_second: got '1000000000000', expected a whole"),
        (f"quota tenant=a inflight={'9' * 5000}", f"inflight: got '{'9' * 20}', expected a whole number of up to 12"),
        (f"token tenant=a rights=step sha256={HASH}\n" * 2, "line 2: sha256: got abababab... in two entries"),
        ("certificate tenant=a rights=step", "got no name="),
        ("certificate tenant=a rights=step name=", "name: got no value, expected one"),
        (f"token tenant=a rights=step sha256={HASH} expires=", "expires: got no value, expected one, or no such word"),
        (f"ck_{HASH}", "got a token itself, expected its line, which `cellkeeper-server token new` prints to stdout"),
        (f"token ck_{HASH}", "got a token itself, expected its line"),
    ],
)
def test_what_cannot_be_taken_is_named_with_its_line(line: str, words: str) -> None:
    with pytest.raises(BadTokens) as caught:
        read_table(line, Quota())
    assert str(caught.value).startswith("line ")
    assert words in str(caught.value)
    assert HASH not in str(caught.value)
    assert "ck_" not in str(caught.value)


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, other = tmp_path / "tokens", tmp_path / "other"
    first, second = new_token(), new_token()
    file.write_text(token_line(first, "a", "step"))
    tokens = TokenFile(str(file), Quota())
    assert not tokens.reread()

    other.write_text(token_line(second, "a", "step"))
    os.replace(other, file)  # as operators should do it
    assert tokens.reread()
    assert tokens.table.of_token(first) is None
    assert tokens.table.of_token(second) is not None

    for change in (lambda: file.write_text("nonsense"), file.unlink):
        change()
        with caplog.at_level(logging.ERROR):
            caplog.clear()
            for _ in range(3):
                assert not tokens.reread()
        assert len(caplog.records) == 1  # logged once
        assert tokens.table.of_token(second) is not None

    file.write_text(token_line(first, "a", "step"))
    assert tokens.reread()
    assert tokens.table.of_token(first) is not None


def test_a_named_pipe_is_no_token_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Opening one waits for its writer, and a server with a waiting thread reads no token again and does not end."""
    file, token = tmp_path / "tokens", new_token()
    file.write_text(token_line(token, "a", "step"))
    tokens = TokenFile(str(file), Quota())
    file.unlink()
    os.mkfifo(file)
    reading = threading.Thread(target=tokens.reread, daemon=True)
    with caplog.at_level(logging.ERROR):
        reading.start()
        reading.join(PATIENCE_S)
    assert not reading.is_alive()
    assert "is not a regular file" in caplog.text
    assert tokens.table.of_token(token) is not None
    with pytest.raises(StartError, match="is not a regular file"):
        TokenFile(str(file), Quota())


def test_a_file_that_lets_nobody_in_or_everybody_write_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens"
    file.write_text("quota tenant=a inflight=5")
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        tokens = TokenFile(str(file), Quota())
        assert f"tokens: {file} lets nobody in" in caplog.text
        caplog.clear()
        file.write_text(token_line(new_token(), "a", "step"))
        tokens.reread()
        assert caplog.text == ""
        file.chmod(0o666)
        file.write_text(token_line(new_token(), "a", "step,read"))
        tokens.reread()
        assert f"every user of this machine may add tokens to {file}; chmod o-w" in caplog.text


def test_a_session_quota_needs_an_end_of_sessions(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("quota tenant=a sessions=5")
    with pytest.raises(StartError, match="max-ttl-ms"):
        TokenFile(str(file), Quota(), counts_sessions=False)


def test_the_command_shows_a_token_once_and_its_line() -> None:
    done = program("token", "new", "--tenant", "acme", "--rights", "step,read")
    token = done.err.strip()
    assert (done.status, token[:3], len(token)) == (0, "ck_", 46)
    grant = read_table(done.out, Quota()).of_token(token)
    assert grant is not None
    assert grant.tenant == "acme"
    assert "rights: got 'all'" in program("token", "new", "--tenant", "acme", "--rights", "all").line
