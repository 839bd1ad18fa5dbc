"""Names and what they stand for: a small registry that other packages extend by entry points."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any, ClassVar, Generic, TypeVar, cast

import gymnasium

from ovd_envs.env import TextEnv
from ovd_envs.errors import OVDError, RegistrationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one registered name."""

    name: str
    summary: str
    source: str
    """Distribution that an entry point comes from, or the module of a direct registration."""
    target: Any
    """The object, or "module:attribute" where it is loaded at first use."""
    error: str = ""
    """Why it cannot be used, where that is known."""
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    """What it can do, and what not, where entries of its kind say so."""


class Registry(Generic[T]):
    """Objects by name; the entry points of ``group`` are part of it, loaded at first use.

    Args:
        group: entry-point group, e.g. "ovd.judges".
        kind: the word for one entry in messages, e.g. "judge".
        describe: the capabilities that an object declares; raises ``RegistrationError`` where it
            declares none.
    """

    #: Every registry of this process, in the order in which they were made (for ``ovd envs``).
    everywhere: ClassVar[list[Registry[Any]]] = []

    def __init__(
        self,
        group: str,
        kind: str = "",
        *,
        describe: Callable[[T], Mapping[str, bool]] | None = None,
    ) -> None:
        Registry.everywhere.append(self)
        self.group = group
        self.kind = kind or group.rpartition(".")[2].rstrip("s")
        self._describe = describe
        self._entries: dict[str, Entry] = {}
        self._scanned = False

    def register(
        self,
        name: str,
        target: T | str,
        summary: str = "",
        *,
        source: str = "",
        capabilities: Mapping[str, bool] | None = None,
    ) -> None:
        """Register ``target`` (an object or "module:attribute") under ``name``.

        ``capabilities`` are what it declares, for a list that does not load it. Raises
        ``RegistrationError`` where the name stands for something else already, and where the
        object does not declare what it can do, though entries of its kind must.
        """
        known = self._entries.get(name)
        if known is not None and known.target not in (target, _place_of(target)):
            raise RegistrationError(
                f"{self.kind} {name!r} is registered already, from {known.source}"
            )
        if not source:
            where = target.partition(":")[0] if isinstance(target, str) else target
            source = where if isinstance(where, str) else getattr(where, "__module__", "?")
        if capabilities is None and not isinstance(target, str):
            try:
                capabilities = self._declared(target)
            except RegistrationError as error:
                raise RegistrationError(f"{self.kind} {name!r}: {error}") from error
        about = summary or _summary(target)
        self._entries[name] = Entry(name, about, source, target, capabilities=capabilities or {})

    def names(self) -> list[str]:
        """All names, sorted; nothing is loaded."""
        self._scan()
        return sorted(self._entries)

    def get(self, name: str) -> T:
        """The object of this name, loaded now where it was not yet.

        Raises ``RegistrationError`` naming the nearest known name, or why it does not load.
        """
        self._scan()
        entry = self._entries.get(name)
        if entry is None and ":" in name:  # as Gymnasium has it: the module that registers it
            module, _, name = name.rpartition(":")
            import_module(module, f"{self.kind} {name!r}")
            return self.get(name)
        if entry is None:
            near = difflib.get_close_matches(name, self._entries, n=1, cutoff=0.5)
            known = f"known: {', '.join(self.names())} (one of your own: MODULE:{name})"
            hint = f"did you mean {near[0]!r}?" if near else known
            raise RegistrationError(f"no {self.kind} {name!r}: {hint}")
        if entry.error:
            raise RegistrationError(f"{self.kind} {name!r} from {entry.source}: {entry.error}")
        if not isinstance(entry.target, str):
            return cast(T, entry.target)
        try:
            module, _, attribute = entry.target.partition(":")
            loaded: Any = importlib.import_module(module)
            for part in attribute.split("."):
                loaded = getattr(loaded, part)
        except Exception as error:  # somebody else's module can fail in any way
            reason = f"{entry.target} does not load ({type(error).__name__}: {error})"
            raise self._unusable(entry, reason) from error
        try:
            declared = self._declared(loaded)
        except RegistrationError as error:
            raise self._unusable(entry, str(error)) from error
        summary = entry.summary or _summary(loaded)
        self._entries[name] = replace(entry, target=loaded, summary=summary, capabilities=declared)
        return cast(T, loaded)

    def entries(self) -> list[Entry]:
        """Every entry, by name; what comes without a summary is loaded to read its docstring, and
        what comes without the capabilities of its kind, to read these.

        What does not load is listed with its ``error``.
        """
        self._scan()
        for name, entry in list(self._entries.items()):
            unknown = self._describe is not None and not entry.capabilities
            if (unknown or not entry.summary) and not entry.error:
                # Where it fails, the entry tells why from now on.
                with contextlib.suppress(RegistrationError):
                    self.get(name)
        return [self._entries[name] for name in sorted(self._entries)]

    def _unusable(self, entry: Entry, reason: str) -> RegistrationError:
        """The entry keeps its reason; what to raise now."""
        self._entries[entry.name] = replace(entry, error=reason)
        return RegistrationError(f"{self.kind} {entry.name!r} from {entry.source}: {reason}")

    def _declared(self, target: T) -> Mapping[str, bool]:
        return {} if self._describe is None else self._describe(target)

    def refresh(self) -> None:
        """Look for entry points again at the next use (after something was installed)."""
        self._scanned = False

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        for point in metadata.entry_points(group=self.group):
            source = point.dist.name if point.dist is not None else "?"
            known = self._entries.get(point.name)
            if known is None:
                self._entries[point.name] = Entry(point.name, "", source, point.value)
            elif known.source != source:
                clash = f"{source} registers this name too (ignored)"
                if clash not in known.summary:
                    summary = f"{known.summary} [{clash}]".strip()
                    self._entries[point.name] = replace(known, summary=summary)


def import_module(module: str, wanted: str) -> None:
    """Import the module in which ``wanted`` registers itself. Raises ``RegistrationError``."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        hint = "is its folder on PYTHONPATH?"
        raise RegistrationError(
            f"{wanted}: module {module!r} cannot be imported ({error}); {hint}"
        ) from error


def _place_of(target: Any) -> str | None:
    """The "module:attribute" by which an entry point names a class or function."""
    where = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    return f"{where[0]}:{where[1]}" if all(where) else None


def _summary(target: Any) -> str:
    """The first line of the docstring of a class or function (not one that it inherits)."""
    if not (inspect.isclass(target) or inspect.isroutine(target)):
        return ""
    return (target.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True, slots=True)
class EnvInfo:
    """One line of the list of environments."""

    name: str
    summary: str
    source: str
    error: str = ""


#: Every text environment. Use ``register``, ``make`` and ``environments`` below.
ENVIRONMENTS: Registry[Callable[..., TextEnv]] = Registry("ovd.environments", "environment")


def register(
    name: str, factory: Callable[..., TextEnv] | str, summary: str = "", *, source: str = ""
) -> None:
    """Register an environment here and with Gymnasium.

    ``factory`` is a ``TextEnv`` class, a function that returns one, or "module:attribute" of
    either; ``name`` is "namespace/Name-v0"; ``source`` says where it comes from (by default the
    module of ``factory``). Raises ``RegistrationError`` for a malformed or taken
    name.
    """
    try:
        gymnasium.envs.registration.parse_env_id(name)
    except gymnasium.error.Error as error:
        raise RegistrationError(
            f"environment {name!r}: expected a name like 'namespace/Name-v0'"
        ) from error
    ENVIRONMENTS.register(name, factory, summary, source=source)
    _tell_gymnasium(name, factory)


def make(name: str, **options: Any) -> TextEnv:
    """The environment ``name``, with its own options (``split``, ``render_mode``, ...).

    Not wrapped: ``gymnasium.make`` gives the same environment in Gymnasium's checking wrappers.
    Raises ``RegistrationError`` for an unknown name or option, and what the environment itself
    raises for a bad value.
    """
    # Gymnasium's form "module:namespace/Name-v0" imports the module first.
    module, _, name = name.rpartition(":")
    if module:
        import_module(module, f"environment {name!r}")
    factory = ENVIRONMENTS.get(name)
    _check_options(name, factory, options)
    env = factory(**options)
    if not isinstance(getattr(env, "unwrapped", None), TextEnv):
        raise RegistrationError(
            f"environment {name!r}: expected a TextEnv, its factory made {type(env).__name__}"
        )
    spec = gymnasium.registry.get(name)
    if spec is not None and env.unwrapped.spec is None:
        env.unwrapped.spec = replace(spec, kwargs={**spec.kwargs, **options})
    return env


def environments() -> dict[str, EnvInfo]:
    """What is registered, by name; an entry point that does not load is there with its error."""
    return {
        entry.name: EnvInfo(entry.name, entry.summary, entry.source, entry.error)
        for entry in ENVIRONMENTS.entries()
    }


def register_entry_points() -> None:
    """Tell Gymnasium of the environments of installed packages; none of them is imported."""
    for name in ENVIRONMENTS.names():
        target = ENVIRONMENTS._entries[name].target
        try:
            _tell_gymnasium(name, target)
        except gymnasium.error.Error as error:
            entry = ENVIRONMENTS._entries[name]
            reason = f"not a Gymnasium name like 'namespace/Name-v0' ({error})"
            ENVIRONMENTS._entries[name] = replace(entry, error=reason)


def _tell_gymnasium(name: str, factory: Callable[..., TextEnv] | str) -> None:
    if name not in gymnasium.registry:
        gymnasium.register(
            id=name,
            entry_point=cast(Any, factory),
            vector_entry_point=f"ovd_envs.vector_entry_points:{name}",
        )


def _check_options(name: str, factory: Callable[..., TextEnv], options: dict[str, Any]) -> None:
    """Name the option that ``factory`` does not have, instead of Python's TypeError."""
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_ONLY]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise OVDError(f"environment {name!r} has no option {option!r}: {hint}")
