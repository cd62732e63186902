"""Live bytes of this process' tensors, and their peaks, between marks: exact on a CPU, too."""

import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Stretch:
    """From one mark to the next: the most that lived at once, and what lived at its end; bytes."""

    peak: int
    end: int


class LiveBytes:
    """A context in which all that torch allocates on `device` is counted. Read `stretches` after the end.

    It counts from 0, or on a CPU from the first call of `count_on_all_threads`.

    On a GPU by the caching allocator's own counters. On a CPU torch's profiler records every allocation with the sum at that
    time, so that temporaries within one operator count as well; what numpy or a library allocates for itself does not.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stretches: dict[str, Stretch] = {}
        self._marks: list[tuple[int, str]] = []
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True) if device.type == "cpu" else None

    def __enter__(self) -> "LiveBytes":
        if self._profile is None:
            self._start = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            count_on_all_threads()
            self._profile.__enter__()
        return self

    def mark(self, name: str) -> None:
        """End the stretch called `name`."""
        if self._profile is None:
            peak, end = torch.cuda.max_memory_allocated(self.device), torch.cuda.memory_allocated(self.device)
            self.stretches[name] = Stretch(peak - self._start, end - self._start)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            torch.empty(1)  # an event that carries the sum of now, with what other threads released
            self._marks.append((time.time_ns(), name))

    def __exit__(self, *error: object) -> None:
        if self._profile is None:
            return
        self._profile.__exit__(None, None, None)
        tree = self._profile.profiler.kineto_results.experimental_event_tree()  # type: ignore[union-attr]
        self.stretches = _stretches(sorted(_sums(tree)), self._marks)


def count_on_all_threads() -> None:
    """gloo releases what it has sent on threads of its own, which the profiler does not see: have the allocator keep its sum
    on all of them, whether anybody looks or not. torch has this switch, and no door to it from Python."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    ctypes.c_bool.in_dll(library, "FLAGS_caffe2_report_cpu_memory_usage").value = True


def _sums(tree: list[Any]) -> Iterator[tuple[int, int]]:
    """(time, bytes that live then) at each allocation and release."""
    todo = list(tree)
    while todo:
        event = todo.pop()
        todo += event.children
        kind, fields = event.typed
        if kind == torch._C._profiler._EventType.Allocation:
            yield event.start_time_ns, fields.total_allocated


def _stretches(sums: list[tuple[int, int]], marks: list[tuple[int, str]]) -> dict[str, Stretch]:
    """Of (time, bytes) and (time, name), both in the order of time."""
    stretches, now, at = {}, 0, 0
    for until, name in marks:
        peak = now
        while at < len(sums) and sums[at][0] <= until:
            now = sums[at][1]
            peak, at = max(peak, now), at + 1
        stretches[name] = Stretch(peak, now)
    return stretches
