"""Every crash point of the kernel is hit, in every service that passes it, again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.faults.scene import Scene
from bench.platform import SERVICES
from shared.crash import POINTS

OFTEN = (34, 2)  # in all and in each service, by one run; by three it is a hundred and five
CALLERS = ("order", "notify")  # who calls providers, the carrier, the mail server


def logs(directory: Path) -> dict[str, dict[str, str]]:
    """The environment with which each service ends itself at a point that it passes, and writes down where."""
    return {
        service: {
            "ISTHMUS_CRASH_POINTS": ",".join(_weighted(passed_by(service))),
            "ISTHMUS_CRASH_LOG": str((directory / f"{service}.crashes").resolve()),
        }
        for service in SERVICES
    }


def passed_by(service: str) -> Sequence[str]:
    return [point for point in POINTS if service in CALLERS or not point.startswith("call ")]


def _weighted(points: Sequence[str]) -> Sequence[str]:
    """Those that only two services pass are chosen more often, or all would wait for them."""
    return [point for point in points for _ in range(3 if point.startswith("call ") else 1)]


def hits(directory: Path) -> Counter[tuple[str, str]]:
    """How often each service has ended at each point."""
    found: Counter[tuple[str, str]] = Counter()
    for service in SERVICES:
        log = directory / f"{service}.crashes"
        for point in log.read_text().splitlines() if log.exists() else ():
            found[service, point] += 1
    return found


async def crash(scene: Scene) -> None:
    """Until each point has been hit often enough, in all and in each service."""
    in_all, each = (1, 0) if scene.small else OFTEN
    while await scene.sleep(1.0):
        found = hits(scene.stack.directory)
        missing = lacking(found, in_all, each)
        scene.facts["crashes"] = found.total()
        if not missing:
            break
    scene.load.stop()
    found = hits(scene.stack.directory)
    scene.facts["by point"] = {
        point: {service: found[service, point] for service in SERVICES if found[service, point]} for point in POINTS
    }
    await scene.unharm()


async def every_point_was_hit(scene: Scene) -> Sequence[str]:
    """A run that ended before is no proof; in small it need not be one."""
    return (
        [] if scene.small else [f"not hit often enough: {one}" for one in lacking(hits(scene.stack.directory), *OFTEN)]
    )


def lacking(found: Counter[tuple[str, str]], in_all: int, each: int) -> list[str]:
    """Which points have been hit too seldom, in all or in one service."""
    missing: list[str] = []
    for point in POINTS:
        services = [service for service in SERVICES if point in passed_by(service)]
        if sum(found[service, point] for service in services) < in_all:
            missing.append(point)
        missing += [f"{point} in {service}" for service in services if found[service, point] < each]
    return missing
