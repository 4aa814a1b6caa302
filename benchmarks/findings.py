"""What makes figures doubtful: one plain sentence each, with what was found, for the top of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewright.benchmarks.conditions import Conditions

__all__ = ["findings_of"]

_MOST_LOAD_PER_CORE = 0.5
# Below, one tick of the kernel's clock more or less would decide.
_LEAST_S = 1.0
_MOST_OTHERS = 0.10
_MOST_STOLEN = 0.05
_MOST_FALL = 0.10
_HOT_C = 85.0
_NEAR_TRIP_C = 5.0
_LEAST_MEMORY_MB = 512.0
_LEAST_MEMORY = 0.10
_MOST_SWAPPED_MB = 16.0
# Their "powersave" goes up to the highest clock; that of all others stays at the lowest.
_SWIFT_SAVERS = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")


def findings_of(seen: Conditions, emulated: str | None = None) -> tuple[str, ...]:
    """A sentence for each thing in these conditions that makes figures doubtful, the weightiest kind first.

    Args:
        seen: The conditions.
        emulated: How the processor is emulated, if it is.
    """
    return (*_emulation(emulated), *_processor(seen), *_clock(seen), *_heat(seen), *_memory(seen))


def _emulation(emulated: str | None) -> Iterator[str]:
    if emulated is not None:
        yield f"The processor is {emulated}; no time here is that of a real one, and no ratio of two times either."


def _processor(seen: Conditions) -> Iterator[str]:
    long_enough = seen.seconds >= _LEAST_S
    if long_enough and seen.others_busy is not None and seen.others_busy > _MOST_OTHERS:
        yield f"Other programs took {seen.others_busy:.0%} of the processor's time during the measurement."
    if long_enough and seen.stolen is not None and seen.stolen > _MOST_STOLEN:
        yield f"The hypervisor gave {seen.stolen:.0%} of the processor's time to other machines."
    if seen.quota_throttled:
        yield (
            f"The container had used up its share of CPU time {_counted(seen.quota_throttled, 'time')}; "
            f"its threads then waited for {seen.quota_throttled_s or 0:.1f} s in all."
        )
    if seen.load_before is not None:
        others = seen.load_before - (seen.own_load_before or 0.0)
        if others > _MOST_LOAD_PER_CORE * seen.machine_cores:
            yield (
                f"The machine was busy before the measurement: its load was {seen.load_before:.1f}, "
                f"of which others caused about {others:.1f}, with {_counted(seen.machine_cores, 'core')}."
            )


def _clock(seen: Conditions) -> Iterator[str]:
    if seen.throttled:
        yield f"The processor slowed down for heat or lack of power {_counted(seen.throttled, 'time')}."
    if seen.frequency_fell is not None and seen.frequency_fell > _MOST_FALL:
        yield (
            f"The processor's clock fell by {seen.frequency_fell:.0%} from the first quarter of the measurement to the "
            f"last; its median was {seen.frequency_mhz_median or 0:.0f} MHz."
        )
    if "powersave" in (seen.governor or "").split(", ") and seen.frequency_driver not in _SWIFT_SAVERS:
        yield (
            "The governor 'powersave' keeps the processor at its lowest clock "
            f"(driver '{seen.frequency_driver or 'unknown'}'); 'performance' is for measuring."
        )


def _heat(seen: Conditions) -> Iterator[str]:
    if seen.temperature_c_max is None:
        return
    reached = f"The processor reached {seen.temperature_c_max:.0f} °C ({seen.temperature_zone})"
    trip = seen.temperature_c_trip
    if trip is not None and seen.temperature_c_max >= trip - _NEAR_TRIP_C:
        yield f"{reached}; from {trip:.0f} °C on the system slows it or stops."
    elif seen.temperature_c_max > _HOT_C:
        yield f"{reached}."


def _memory(seen: Conditions) -> Iterator[str]:
    left, whole = seen.memory_available_mb_min, seen.memory_mb
    if left is not None and left < min(_LEAST_MEMORY_MB, _LEAST_MEMORY * (whole or float("inf"))):
        of_all = "" if whole is None else f" of {whole:.0f}"
        yield f"Little memory was left: {left:.0f}{of_all} MB."
    if seen.swap_grown_mb is not None and seen.swap_grown_mb > _MOST_SWAPPED_MB:
        yield f"The system moved {seen.swap_grown_mb:.0f} MB of memory to disk during the measurement."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
