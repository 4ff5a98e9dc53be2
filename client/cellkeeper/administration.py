"""What an asyncio client can ask about sessions and models without opening a session."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from ._session.arguments import fingerprint_bytes, generation_bytes, id_text, invalid, session_id
from ._transport.bulk_delete import BulkDelete, listed
from ._transport.caller import Caller
from ._transport.calls import only_result
from ._transport.carry_over import CarryOver, WindowOf
from ._transport.requests import request_id
from ._transport.wire import model_of, position_of, session_info_of, state_reply_of
from .position import Position
from .types import CarriedOver, Deleted, Model, SessionInfo, StepReply


class AsyncAdministration(Caller):
    """The calls of AsyncClient that administer sessions and models."""

    async def session_info(self, session: str, *, model: str = "", timeout: float | None = None) -> SessionInfo:
        """Reads what the server knows of a session: position, age, idle time and TTL in seconds, whether it is hot.

        It changes nothing. session: its id. model: its name; optional while the server serves exactly one. timeout:
        seconds for the call, including retries; None: the client's. Raises SessionNotFound, and RecordDamaged, whose
        `position` is what can still be read.
        """
        request = pb.GetSessionRequest(model=id_text(model, "model"), session=session_id(session))
        info: SessionInfo = await self._call("GetSession", request, session, timeout, session_info_of)
        return info

    async def session_state(self, session: str, *, model: str = "", timeout: float | None = None) -> StepReply:
        """Reads a session's committed state without opening the session, which takes the right `read` alone.

        Returns a reply whose `state` has the tensors by name, and whose `position` says when. It restarts the TTL, as a
        step does. session: its id. model: its name; optional while the server serves exactly one. timeout: seconds for
        the call, including retries; None: the client's. Raises SessionNotFound, and ModelChanged if the session's
        version of the model is not served.
        """
        request = pb.GetStateRequest(model=id_text(model, "model"), session=session_id(session))
        reply: StepReply = await self._call("GetState", request, session, timeout, state_reply_of)
        return reply

    async def sessions(
        self, prefix: str = "", *, model: str = "", timeout: float | None = None
    ) -> AsyncIterator[SessionInfo]:
        """Lists the sessions whose id starts with `prefix`, in no particular order, page by page.

        prefix: empty: all sessions. model: its name; optional while the server serves exactly one. timeout: seconds for
        each page, including retries; None: the client's. Sessions that are created or deleted meanwhile may be missing
        or listed. Those with damaged records are listed too, with the reason in `damage`.
        """
        token, prefix, model = "", id_text(prefix, "prefix"), id_text(model, "model")
        while True:
            request = pb.ListSessionsRequest(model=model, prefix=prefix, page_token=token)
            page = await self._call("ListSessions", request, prefix, timeout)
            for info in page.sessions:
                yield session_info_of(info)
            token = page.next_page_token
            if not token:
                return

    async def delete(self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None) -> bool:
        """Deletes that generation of the session. Returns False if it was already gone, which is not an error.

        session: its id. generation: 16 bytes, from a Position or session_info; empty: delete the session only if its
        record is damaged (RecordDamaged). model: its name; optional while the server serves exactly one. timeout:
        seconds for the call, including retries; None: the client's. Raises Unavailable and DeadlineExceeded, after
        which it is safe to repeat the call: it deletes no other generation.
        """
        item = pb.DeleteRequest.Item(session=session_id(session), generation=generation_bytes(generation))
        request = pb.DeleteRequest(model=id_text(model, "model"), items=[item])
        return bool((await self._call("Delete", request, session, timeout, only_result)).deleted)

    async def delete_many(
        self,
        sessions: Iterable[SessionInfo] | AsyncIterable[SessionInfo],
        *,
        model: str = "",
        timeout: float | None = None,
        on_progress: Callable[[Deleted], None] | None = None,
    ) -> Deleted:
        """Deletes sessions, several in one request, and counts the outcomes.

        It deletes only the generation that each session was listed with. sessions: as `sessions` lists them: `await
        client.delete_many(client.sessions("old/"))`. model: its name; optional while the server serves exactly one.
        timeout: seconds for each request. on_progress: called after each request with the counts so far. A session that
        fails is counted and does not hold up the others: see `failures`. If a run is interrupted, start it again.
        Raises InvalidArgument for anything that is not a SessionInfo.
        """
        bulk = await self._new_bulk_delete(model, timeout)
        page: list[SessionInfo] = []

        async def delete_page() -> None:
            await bulk.delete(page)
            page.clear()
            if on_progress is not None:
                on_progress(bulk.result)

        async for info in _each(sessions):
            page.append(info)
            if len(page) == bulk.room:
                await delete_page()
        if page:
            await delete_page()
        return bulk.result

    async def _new_bulk_delete(self, model: str, timeout: float | None) -> BulkDelete:
        return BulkDelete(self, await self.model(id_text(model, "model"), timeout=timeout), timeout)

    async def reset(
        self, session: str, generation: bytes, *, model: str = "", timeout: float | None = None
    ) -> Position:
        """Ends that generation of the session and starts a new one at step 0. Returns the new position.

        The new generation belongs to the model version that takes new sessions, even if the session's own is no longer
        served. session: its id. generation: 16 bytes, from a Position or session_info. model: its name; optional while
        the server serves exactly one. timeout: seconds for the call, including retries; None: the client's. Raises
        SessionNotFound, and GenerationChanged if the session has another generation: read it again before deciding.
        """
        item = pb.ResetRequest.Item(
            session=session_id(session), generation=generation_bytes(generation), request_id=request_id()
        )
        request = pb.ResetRequest(model=id_text(model, "model"), items=[item])
        return position_of((await self._call("Reset", request, session, timeout, only_result)).position)

    async def carry_over(
        self,
        policy: str,
        *,
        model: str = "",
        prefix: str = "",
        sessions: Iterable[str] | None = None,
        window_of: WindowOf | None = None,
        fingerprint: bytes = b"",
        timeout: float | None = None,
        on_progress: Callable[[CarriedOver], None] | None = None,
    ) -> CarriedOver:
        """Carries sessions over to another version of their model, and counts the outcomes.

        policy: "keep" the state, "rerun" a window of inputs, or "reset", as in the session's own carry_over. model: its
        name; optional while the server serves exactly one. prefix: of the sessions' ids. sessions: these ids and no
        others. window_of: with the policy "rerun", returns a session's window ([W, F], or [W] token ids), or None to
        leave that session as it is. fingerprint: 32 bytes, of the new version; empty: the one that takes new sessions.
        timeout: seconds for each request. on_progress: called after each page of sessions with the counts so far.

        A session that fails is counted and does not hold up the others: see `failures`. If a run is interrupted, start
        it again. Sessions of the other version that are created meanwhile may be missed. Raises InvalidArgument for an
        unknown policy, model or fingerprint, and Unavailable and DeadlineExceeded from the calls that list sessions.
        """
        carry_over = await self._new_carry_over(policy, model, fingerprint, window_of, timeout)
        carry_over.choose(prefix, sessions)
        while (page := await carry_over.page()) is not None:
            await carry_over.carry([(info, window_of(info) if window_of else None) for info in page])
            if on_progress is not None:
                on_progress(carry_over.result)
        return carry_over.result

    async def _new_carry_over(
        self, policy: str, model: str, fingerprint: bytes, window_of: WindowOf | None, timeout: float | None
    ) -> CarryOver:
        if (window_of is None) == (policy == "rerun"):
            raise invalid("window_of", f"{window_of!r} with {policy!r}", "a function with 'rerun', else None")
        target = await self.model(id_text(model, "model"), fingerprint, timeout=timeout)
        return CarryOver(self, target, policy, timeout)

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """Lists every served version of every model; the first of each name takes new sessions.

        timeout: seconds for the call, including retries; None: the client's. Raises AccessDenied, Unavailable and
        DeadlineExceeded.
        """
        answer = await self._call("ListModels", pb.ListModelsRequest(), "", timeout)
        return [model_of(info) for info in answer.models]

    async def model(self, name: str = "", fingerprint: bytes = b"", *, timeout: float | None = None) -> Model:
        """Reads one model: its input, outputs, states and limits.

        name: optional while the server serves exactly one. fingerprint: 32 bytes: that version; empty: the one that
        takes new sessions. timeout: seconds for the call, including retries; None: the client's. Raises InvalidArgument
        if no such model is served.
        """
        request = pb.GetModelRequest(model=id_text(name, "name"), fingerprint=fingerprint_bytes(fingerprint))
        model: Model = await self._call("GetModel", request, name, timeout, model_of)
        return model


async def _each(sessions: Iterable[SessionInfo] | AsyncIterable[SessionInfo]) -> AsyncIterator[SessionInfo]:
    if isinstance(sessions, AsyncIterable):
        async for info in sessions:
            yield info
        return
    for info in listed(sessions):
        yield info
