"""Events of calls, which callers wait for."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Callable

import switchyard
import torch
from switchyard import Error
from switchyard.interop import opaque_calls

from .._errors import in_our_words, wrong_type


@opaque_calls
class EventHandle:
    """A point after the work that was queued on a stream so far, or after a call.

    `EventHandle()` is the point after the latest work of the current stream. On the CPU it is reached already.

    Args:
        core: the event of a call; None: the latest work of the current stream.
        on_gpu: whether the call works on CUDA tensors.
    """

    def __init__(self, core: switchyard.Event | None = None, on_gpu: bool = False) -> None:
        self.core = core if core is not None else switchyard.Event()
        self._on_gpu = on_gpu
        self._cuda_event: torch.cuda.Event | None = None
        if core is None and torch.cuda.is_initialized():
            self._cuda_event = torch.cuda.Event()
            self._cuda_event.record()

    @property
    def event(self) -> EventHandle:
        """This object. So `capture().event` is an EventHandle of V1 and of V2."""
        return self

    def current_stream_wait(self) -> None:
        """Makes the current stream wait for this point.

        For CPU tensors it blocks until the point is reached, and raises the error of the call, if there was one.
        """
        if self._cuda_event is not None:
            torch.cuda.current_stream().wait_event(self._cuda_event)
        elif self._on_gpu:
            self.core.wait_on(torch.cuda.current_stream().cuda_stream)
        else:
            try:
                self.core.wait()
            except Error as error:
                raise in_our_words(error) from error

    def before_work_on(self, tensor: Any) -> None:
        """Makes the current stream of such a tensor, or the host, wait for a captured point.

        It does nothing for the event of a call: the engine orders its own calls.
        """
        if self._cuda_event is None:
            return
        if isinstance(tensor, torch.Tensor) and tensor.is_cuda:
            torch.cuda.current_stream(tensor.device).wait_event(self._cuda_event)
        else:
            self._cuda_event.synchronize()


@opaque_calls
class EventOverlap:
    """The event of an asynchronous call. As a context manager it waits at the end of the block.

        with event(release_handle=True):
            work_on_the_current_stream()

    Attributes:
        event: the EventHandle; None if the call was synchronous, or the handle was released.
        extra_tensors: tensors that live as long as this object.
        hook_after_wait: what the next wait calls; None: nothing.
    """

    __slots__ = ("_release_at_exit", "event", "extra_tensors", "hook_after_wait")

    def __init__(self, event: AnyEvent | None = None, extra_tensors: tuple[Any, ...] | None = None) -> None:
        self.event = None if event is None else handle_of("event", event)
        self.extra_tensors = extra_tensors
        self.hook_after_wait: Callable[[], Any] | None = None
        self._release_at_exit = False

    def current_stream_wait(self, release_handle: bool = False) -> None:
        """Does what EventHandle.current_stream_wait does, and then calls the hook, once.

        Args:
            release_handle: True: `event` is None afterwards.

        Raises:
            RuntimeError: the call was synchronous, or the handle was released.
        """
        if self.event is None:
            raise RuntimeError(
                "EventOverlap: expected an event to wait for, seen none: the call was synchronous (pass "
                "async_finish, in V2 async_with_compute_stream), or its event was released"
            )
        self.event.current_stream_wait()
        hook, self.hook_after_wait = self.hook_after_wait, None
        if hook is not None:
            hook()
        if release_handle:
            self.event = None

    def register_hook_after_wait(self, hook_after_wait: Callable[[], Any]) -> None:
        """The next `current_stream_wait` calls the hook after its wait. Raises RuntimeError if a hook waits already."""
        if self.hook_after_wait is not None:
            raise RuntimeError("hook_after_wait: expected one hook between two waits, seen a second one")
        self.hook_after_wait = hook_after_wait

    def __call__(self, release_handle: bool = False) -> EventOverlap:
        """Returns this object. Leaving its next `with` block releases the handle if release_handle is True."""
        self._release_at_exit = release_handle
        return self

    def __enter__(self) -> EventOverlap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        release, self._release_at_exit = self._release_at_exit, False
        if self.event is not None:
            self.current_stream_wait(release)


AnyEvent = EventHandle | EventOverlap
"""What calls take as previous_event."""


def handle_of(name: str, event: Any) -> EventHandle | None:
    """Returns the handle of an event; None: there is nothing to wait for. Raises TypeError for anything else."""
    if event is None or isinstance(event, EventHandle):
        return event
    if isinstance(event, EventOverlap):
        return event.event
    raise wrong_type(name, "an EventHandle or an EventOverlap", event)
