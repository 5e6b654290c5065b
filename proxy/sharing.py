"""One answer for identical requests: found, or made once and played to all who ask for it.

An answer that may be shared is made by a task of its own, which outlives the client that asked first; it ends when nobody
listens any more.
"""

import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.config import Limits
from quiver.schemas.errors import ApiError

from .attempts import Attempts, Job
from .reply import Reply
from .request import Request
from .reuse.identity import Directives, directives, identity
from .reuse.recording import Recording
from .reuse.store import ReuseStore
from .telemetry.metrics import Metrics
from .telemetry.record import Progress
from .watch import Watch

TOLD = {"cache": b"hit", "shared": b"shared", "server": b"miss"}


class Sharing:
    """Answers repeatable jobs. Productions live in the nursery that `answer` is given."""

    def __init__(self, store: ReuseStore, attempts: Attempts, limits: Limits, metrics: Metrics) -> None:
        self._store, self._attempts, self._limits, self._metrics = store, attempts, limits, metrics
        self._log = structlog.get_logger(component="sharing")

    async def answer(
        self, job: Job, request: Request, reply: Reply, progress: Progress, watch: Watch, nursery: trio.Nursery
    ) -> None:
        """Play the answer that an identical request has or gets, or the one that is made now. Raises `ApiError`."""
        wanted = directives(request.header(b"cache-control"), request.header(b"x-quiver-share"))
        if not self._store.applies(wanted):
            await self._attempts.carry_out(job, reply, progress, watch)
            return
        key = identity(job.call.scope, job.call.endpoint, job.call.body)
        with watch:
            recording = self._recording(key, job, wanted, reply, progress, nursery)

            def begun() -> None:
                reply.server_id = recording.notes.server_id

            try:
                await recording.play(reply, begun)
            finally:
                notes = recording.notes
                reply.usage, reply.estimated, reply.server_id = notes.usage, notes.estimated, notes.server_id
                reply.engine = notes.engine

    def _recording(
        self, key: bytes, job: Job, wanted: Directives, reply: Reply, progress: Progress, nursery: trio.Nursery
    ) -> Recording:
        """The answer with this identity; one that is not there yet is being made from now on."""
        now = trio.current_time()
        recording = self._store.find(key, now, wanted)
        if recording is None:
            recording = self._store.begin(key, now, wanted)
            nursery.start_soon(self._produce, job, recording, reply.request_id, progress, nursery)
        else:
            progress.source = "cache" if recording.finished else "shared"
        reply.extra = [*reply.extra, (b"x-quiver-cache", TOLD[progress.source])]
        return recording

    async def _produce(
        self, job: Job, recording: Recording, request_id: str, progress: Progress, nursery: trio.Nursery
    ) -> None:
        """Make the answer of `recording`, for as long as anybody listens."""
        reply, watch = Reply(recording, request_id), Watch(trio.current_time(), self._limits.request)
        recording.notes = reply
        watch.begin_guard(nursery, _Nobody(), reply)
        try:
            with recording.production:
                await self._attempts.carry_out(job, reply, progress, watch)
        except ApiError as error:
            recording.fail(error)
        except Exception:
            self._log.exception("internal error", request_id=request_id)
            recording.fail(ApiError(errors.INTERNAL_ERROR, f"Internal error; the log has it under `{request_id}`"))
        finally:
            if recording.deserted_at is not None and reply.server_id is not None:
                self._metrics.torn_down(reply.server_id, trio.current_time() - recording.deserted_at)
            self._store.finish(recording, trio.current_time())
            await watch.close()


class _Nobody:
    """The client of an answer that is made for whoever listens: it does not leave."""

    async def wait_departure(self) -> None:
        await trio.sleep_forever()
