"""The world: text environments, tasks and grading, for Gymnasium."""

from ovd_envs.env import Budget, Reply, TextEnv
from ovd_envs.errors import OVDError, RegistrationError, TaskError
from ovd_envs.past import Snapshot, SnapshotError
from ovd_envs.registry import (
    EnvInfo,
    Registry,
    environments,
    make,
    register,
    register_entry_points,
)
from ovd_envs.spaces import UnicodeText
from ovd_envs.state import restore, snapshot
from ovd_envs.task import ListTasks, Task, TaskSource
from ovd_envs.vector import TextVectorEnv, make_vec

__all__ = [
    "Budget",
    "EnvInfo",
    "ListTasks",
    "OVDError",
    "RegistrationError",
    "Registry",
    "Reply",
    "Snapshot",
    "SnapshotError",
    "Task",
    "TaskError",
    "TaskSource",
    "TextEnv",
    "TextVectorEnv",
    "UnicodeText",
    "environments",
    "make",
    "make_vec",
    "register",
    "restore",
    "snapshot",
]

register(
    "ovd/Math-v0",
    "ovd_envs.math_env:MathEnv",
    "Arithmetic and word problems in levels, GSM8K and MATH; one or several attempts.",
    source="ovd",
)
register(
    "ovd/WebQA-v0",
    "ovd_envs.webqa.env:WebQAEnv",
    "Questions, a search engine and pages to read: tags, tool calls or Search-R1's protocol.",
    source="ovd",
)
register(
    "ovd/WorldQA-v0",
    "ovd_envs.world.env:WorldQAEnv",
    "The same in an invented world: one to four hops, no download, graded exactly.",
    source="ovd",
)
register_entry_points()
