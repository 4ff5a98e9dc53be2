"""The fixed requests to a server with authentication: whose sessions they see, and what is refused."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .messages import MODEL, frame_request, state_tensor
from .sender import Sender

TOKENS = {"acme": "ck_golden-acme", "other.corp": "ck_golden-other"}
MAX_TTL_MS = 3_600_000


def options(folder: Path) -> dict[str, Any]:
    """Returns the server's options, and writes the token file to the folder.

    Tenants may only step, and may have one session each.
    """
    lines = [
        f"token tenant={tenant} rights=step sha256={sha256(token.encode()).hexdigest()}"
        for tenant, token in TOKENS.items()
    ]
    file = folder / "tokens"
    file.write_text("\n".join([*lines, "quota tenant=acme sessions=1", ""]))
    file.chmod(0o600)
    return {"--tokens": file, "--max-ttl-ms": MAX_TTL_MS}


class Tenants(Sender):
    def run(self) -> None:
        self.call("no token", "Open", pb.OpenRequest(model=MODEL, session="a", request_id=self.new_id()))
        self._is("nobody")
        self.call(
            "a token that is not known", "Open", pb.OpenRequest(model=MODEL, session="a", request_id=self.new_id())
        )
        self._is(TOKENS["acme"])
        start = self.open("open with a token", "a")
        after = self.step("a step with a token", "a", start, [(1, 2)])
        self.call("a frame with a token", "StepBatch", frame_request([("a", after, [(3, 4)])]))
        self.open("one session too many", "b")
        self.call("no right to read", "GetState", pb.GetStateRequest(model=MODEL, session="a"))
        item: Any = {
            "session": "a",
            "generation": after.generation,
            "request_id": self.new_id(),
            "state": [state_tensor(1, 2)],
        }
        self.call("no right to put a state there", "SetState", pb.SetStateRequest(model=MODEL, items=[item]))
        self._is(TOKENS["other.corp"])
        self.step("a step of another tenant's session", "a", after, [(3, 4)])
        self.open("a session of the same name", "a")

    def _is(self, token: str) -> None:
        """Sends this token from now on."""
        self.transcript.metadata = (("authorization", f"Bearer {token}"),)
