"""A procedural web of invented people, places and things, with questions about it."""

from ovd_envs.world.facts import RELATIONS, Ref
from ovd_envs.world.questions import FORMS, kinds_of
from ovd_envs.world.server import WorldServer
from ovd_envs.world.tasks import WorldTasks
from ovd_envs.world.world import PageKey, World

__all__ = ["FORMS", "RELATIONS", "PageKey", "Ref", "World", "WorldServer", "WorldTasks", "kinds_of"]
