"""The ``ovd`` command: it makes sure that its packages are its own, then starts the command line.

``agents``, ``teachers`` and ``training`` are common names: openai-agents, for one, installs
``agents`` too, and whoever is found first, or was installed last, wins. This module stands
outside the four packages so that it can say so even where none of them can be imported.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

#: The packages of the distribution ``ovd``.
PACKAGES = ("ovd_envs", "agents", "teachers", "training")


@dataclass(frozen=True, slots=True)
class Shadow:
    """A package of ours in whose place Python finds something else."""

    package: str
    found: Path | None
    """The file that Python would import; ``None`` where it finds nothing."""
    owners: tuple[str, ...] = ()
    """The other distributions that install a package of this name."""

    def __str__(self) -> str:
        whose = f" (of {', '.join(self.owners)})" if self.owners else ""
        where = f"Python finds {self.found}{whose}" if self.found else "Python finds nothing"
        return f"package {self.package!r} is not ovd's: {where}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.found is None:
            return "install ovd again: pip install --force-reinstall --no-deps ovd"
        if self.owners:
            return (
                "install ovd into a virtual environment of its own (python -m venv), or: "
                f"pip uninstall {' '.join(self.owners)}, then pip install --force-reinstall "
                "--no-deps ovd"
            )
        return f"take {self.found.parent.parent} off PYTHONPATH (or rename {self.found.parent})"


def shadowed_packages() -> list[Shadow]:
    """The packages of ours in whose place Python would import something else; none is imported."""
    home = Path(__file__).resolve().parent
    hashes = _installed_hashes()
    shadows = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        ours = home / package / "__init__.py"
        if found != ours or (package in hashes and _record_hash(ours) != hashes[package]):
            shadows.append(Shadow(package, found, tuple(rival_distributions(package))))
    return shadows


def rival_distributions(package: str) -> list[str]:
    """Other installed distributions that bring files of the top-level package ``package``."""
    marker = f"{package}/__init__.py"
    rivals = {
        dist.name
        for dist in metadata.distributions()
        if dist.name != "ovd" and f"\n{marker}," in "\n" + (dist.read_text("RECORD") or "")
    }
    return sorted(rivals)


def _installed_hashes() -> dict[str, str]:
    """Package -> hash of its ``__init__.py`` as pip wrote it; empty for an editable install."""
    try:
        record = metadata.distribution("ovd").read_text("RECORD") or ""
    except metadata.PackageNotFoundError:
        return {}
    hashes = {}
    for line in record.splitlines():
        path, _, rest = line.partition(",")
        package, _, name = path.partition("/")
        if package in PACKAGES and name == "__init__.py":
            hashes[package] = rest.partition(",")[0]
    return hashes


def _record_hash(path: Path) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"


def main() -> None:
    """Run the command line, or say which packages are not ours and exit with code 2."""
    if shadows := shadowed_packages():
        for shadow in shadows:
            sys.stderr.write(f"error: {shadow}; {shadow.remedy}\n")
        if "doctor" in sys.argv[1:] and "--json" in sys.argv[1:]:
            checks = [
                {"name": "packages", "status": "fail", "detail": str(s), "remedy": s.remedy}
                for s in shadows
            ]
            print(json.dumps({"ok": False, "checks": checks}, indent=2))
        raise SystemExit(2)
    from training.cli import main as start

    start()


if __name__ == "__main__":
    main()
