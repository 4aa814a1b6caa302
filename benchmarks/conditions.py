"""What the machine did during a measurement: whether the processor was ours, at what clock, how hot.

A figure measured beside another program, at a falling clock or in a container that was stopped says little about the model.
:class:`Watch` looks on meanwhile, and says in plain sentences what makes the figures doubtful.
"""

from __future__ import annotations

import math
import os
import statistics
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from edgewright.benchmarks import jetson
from edgewright.benchmarks.energy import open_energy_meter, why_no_energy
from edgewright.benchmarks.findings import findings_of
from edgewright.benchmarks.proc import (
    ROOT,
    cpu_times,
    load_average,
    memory,
    own_cpu_s,
    own_load,
    peak_memory_mb,
    quota_throttling,
)
from edgewright.benchmarks.sensors import cpu_zones, frequencies_mhz, frequency_driver, governors, throttle_events
from edgewright.runtime.machine import emulation

Count = TypeVar("Count", int, float)

__all__ = ["Conditions", "Watch", "peak_memory_mb"]

_PERIOD_S = 0.5
# A look at the sensors may cost a thousandth of a core; the next one waits for as long as that takes.
_DEAREST = 1e-3
_MOST_SENSORS = 8
_LEAST_SAMPLES = 8


@dataclass(frozen=True)
class Conditions:
    """What was seen. None is what the system does not tell; virtual machines and containers tell least.

    Attributes:
        seconds: How long the watch took.
        cores: Those that this process may run on; the shares are of their time.
        machine_cores: All that there are; the load average is that of all.
        load_before: The load average at its start.
        own_load_before: How much of that this process itself may have caused.
        others_busy: Share of the time, 0 to 1, that other programs used. Our children's time counts as ours.
        stolen: Share that the hypervisor gave to other machines.
        frequency_mhz_min: Of the fastest core at each look, as the others may be idle.
        frequency_mhz_median: The same.
        frequency_mhz_max: The same.
        frequency_fell: By what share the median of the last quarter is below that of the first; negative if it rose.
        frequency_driver: What sets the clocks.
        governor: The rules by which it does.
        temperature_zone: Where the highest temperature was.
        temperature_c_start: The highest at the start, in degrees Celsius.
        temperature_c_max: The highest at any time.
        temperature_c_trip: From this on the kernel slows or stops the machine for that zone.
        throttled: How often the hardware slowed the processor.
        quota_throttled: How often a container's share of CPU time was used up.
        quota_throttled_s: For how long its threads then waited, summed over cores.
        memory_mb: The machine's memory, in MB (10^6 bytes).
        memory_available_mb_min: What was left of it at the worst.
        swap_grown_mb: How much more of it was on disk at the end.
        power_mode: Of a Jetson: "MAXN (0)".
        clocks: Of a Jetson, at the start, where `jetson_clocks` may be asked.
        energy_source: What measures energy here, or why nothing does.
        findings: One sentence for each thing that makes the figures doubtful.
    """

    seconds: float
    cores: int
    machine_cores: int
    load_before: float | None = None
    own_load_before: float | None = None
    others_busy: float | None = None
    stolen: float | None = None
    frequency_mhz_min: float | None = None
    frequency_mhz_median: float | None = None
    frequency_mhz_max: float | None = None
    frequency_fell: float | None = None
    frequency_driver: str | None = None
    governor: str | None = None
    temperature_zone: str | None = None
    temperature_c_start: float | None = None
    temperature_c_max: float | None = None
    temperature_c_trip: float | None = None
    throttled: int | None = None
    quota_throttled: int | None = None
    quota_throttled_s: float | None = None
    memory_mb: float | None = None
    memory_available_mb_min: float | None = None
    swap_grown_mb: float | None = None
    power_mode: str | None = None
    clocks: dict[str, jetson.Clock] = field(default_factory=dict)
    energy_source: str = ""
    findings: tuple[str, ...] = ()


class Watch:
    """`with Watch() as watch: measure()`; then `watch.conditions`. One for all that is measured: what this process did
    shortly before counts in the load average, and can only be guessed.

    Args:
        root: Stands for `/`.
        period_s: Time between two looks, longer where they are dear.
    """

    def __init__(self, root: Path = ROOT, period_s: float = _PERIOD_S) -> None:
        self._root, self._period_s = root, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgewright-watch", daemon=True)
        self._mhz: list[float] = []
        self._available_mb: list[float] = []
        self._celsius: list[tuple[float, int]] = []
        self._conditions: Conditions | None = None

    @property
    def conditions(self) -> Conditions:
        """What was seen; known when the watch has ended."""
        if self._conditions is None:
            raise RuntimeError("The conditions are known when the watch has ended.")
        return self._conditions

    def __enter__(self) -> Watch:
        root = self._root
        self._cores = sorted(_own_cores())
        self._watched = self._cores[:: math.ceil(len(self._cores) / _MOST_SENSORS)]
        self._zones = cpu_zones(root)[:_MOST_SENSORS]
        load, own = load_average(root), own_load(root)
        is_jetson = jetson.jetson_model(root) is not None
        mode = jetson.power_mode() if is_jetson else None
        clocks = jetson.clocks() if is_jetson else {}
        # What there is at the start; the rest follows at the end.
        self._before = Conditions(
            seconds=0.0,
            cores=len(self._cores),
            machine_cores=os.cpu_count() or len(self._cores),
            load_before=load,
            own_load_before=own,
            frequency_driver=frequency_driver(root, self._cores),
            governor=", ".join(governors(root, self._cores)) or None,
            power_mode=None if mode is None else f"{mode.name} ({'?' if mode.number is None else mode.number})",
            clocks=clocks,
            energy_source=_energy_source(root),
        )
        self._throttled = throttle_events(root)
        self._quota = quota_throttling(root) or (None, None)
        self._swap_mb = memory(root).swap_used_mb
        self._look()
        self._thread.start()
        # Last, so that nothing of the above counts.
        self._started, self._own_s, self._times = time.perf_counter(), own_cpu_s(root), cpu_times(root, self._cores)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        times, own_s = cpu_times(self._root, self._cores), own_cpu_s(self._root)
        seconds = time.perf_counter() - self._started
        self._stop.set()
        self._thread.join()
        self._look()
        others_busy = stolen = None
        if times is not None and self._times is not None:
            busy_s = times.busy_s - self._times.busy_s
            stolen_s = times.stolen_s - self._times.stolen_s
            all_s = busy_s + stolen_s + times.idle_s - self._times.idle_s
            others_busy = _share(busy_s - (own_s - self._own_s), all_s)
            stolen = _share(stolen_s, all_s)
        left = memory(self._root)
        quota, quota_s = quota_throttling(self._root) or (None, None)
        hottest_c, zone = max(self._celsius, default=(None, 0))
        seen = replace(
            self._before,
            seconds=seconds,
            others_busy=others_busy,
            stolen=stolen,
            frequency_mhz_min=min(self._mhz, default=None),
            frequency_mhz_median=statistics.median(self._mhz) if self._mhz else None,
            frequency_mhz_max=max(self._mhz, default=None),
            frequency_fell=_fell(self._mhz),
            temperature_zone=None if hottest_c is None else self._zones[zone].name,
            temperature_c_start=self._celsius[0][0] if self._celsius else None,
            temperature_c_max=hottest_c,
            temperature_c_trip=None if hottest_c is None else self._zones[zone].trip_c,
            throttled=_gain(self._throttled, throttle_events(self._root)),
            quota_throttled=_gain(self._quota[0], quota),
            quota_throttled_s=_gain(self._quota[1], quota_s),
            memory_mb=left.total_mb,
            memory_available_mb_min=min(self._available_mb, default=None),
            swap_grown_mb=_gain(self._swap_mb, left.swap_used_mb),
        )
        self._conditions = replace(seen, findings=findings_of(seen, emulation(self._root)))

    def _run(self) -> None:
        wait_s = self._period_s
        while not self._stop.wait(wait_s):
            before_s = time.thread_time()
            self._look()
            wait_s = max(self._period_s, (time.thread_time() - before_s) / _DEAREST)

    def _look(self) -> None:
        mhz = frequencies_mhz(self._root, self._watched)
        if mhz:
            self._mhz.append(max(mhz.values()))
        available_mb = memory(self._root).available_mb
        if available_mb is not None:
            self._available_mb.append(available_mb)
        celsius = [(told, index) for index, zone in enumerate(self._zones) if (told := zone.celsius()) is not None]
        if celsius:
            self._celsius.append(max(celsius))


def _own_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _gain(before: Count | None, after: Count | None) -> Count | None:
    return None if before is None or after is None else after - before


def _share(part_s: float, all_s: float) -> float | None:
    # The kernel's clock ticks a hundred times a second, and not at the same moment for all.
    return min(1.0, max(0.0, part_s / all_s)) if all_s > 0 else None


def _fell(mhz: list[float]) -> float | None:
    if len(mhz) < _LEAST_SAMPLES:
        return None
    quarter = len(mhz) // 4
    return 1 - statistics.median(mhz[-quarter:]) / statistics.median(mhz[:quarter])


def _energy_source(root: Path) -> str:
    meter = open_energy_meter(root)
    if meter is None:
        return why_no_energy(root)
    with meter:
        return meter.source
