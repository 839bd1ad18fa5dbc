"""Where a step's groups come from: the student acts, the judge reads, the demonstrator shows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

from agents.episode import Episode
from agents.rollout import rollout
from agents.student import Student
from ovd_envs.errors import OVDError
from ovd_envs.task import TaskSource
from teachers.cache import VerdictCache
from teachers.group_judging import GroupJudging
from teachers.protocol import Continuing, Demonstrator, Judge
from teachers.score import score
from teachers.verdict import Verdict
from training.config import Config
from training.groups import Group, group_episodes
from training.protocol import Algorithm
from training.reporter import Reporter
from training.sampler import Sampler, make_student
from training.task_order import training_tasks


class GroupMaker:
    """Makes the groups of a step from (seed, step) and the weights that the sampler has.

    ``verdicts`` keeps what the judge has said of a step that is not whole yet.
    """

    def __init__(
        self,
        config: Config,
        sampler: Sampler,
        tasks: TaskSource,
        algorithm: Algorithm,
        judge: Judge | None,
        demonstrator: Demonstrator | None,
        verdicts: VerdictCache,
    ) -> None:
        self.config = config
        self.sampler = sampler
        self.tasks = tasks
        self.algorithm = algorithm
        self.judge = judge
        self.demonstrator = demonstrator
        self.verdicts = verdicts

    def make(
        self, step: int, sampling: AbstractContextManager[None], reporter: Reporter
    ) -> list[Group]:
        """The groups of ``step``, in the order of its tasks.

        The student acts within ``sampling``. Where episodes do not wait for one another, neither
        does the judge: a group is read as soon as its last episode has ended.
        """
        if not getattr(self.algorithm, "needs_student", True):
            tasks = training_tasks(self.tasks, self.config, step)
            groups = [Group(task, [], empty=self.config.rollout.group_size) for task in tasks]
            self._demonstrate(groups, step, reporter)
            return groups
        student = make_student(self.sampler, self.config, self.config.rollout.temperature)
        judging = None
        if self.judge is not None and hasattr(student, "submit"):  # rollout's "free"
            size = self.config.rollout.group_size
            judging = GroupJudging(self.judge, size, cache=self.verdicts)
        with contextlib.closing(judging) if judging else contextlib.nullcontext():
            with sampling:
                episodes = self._act(student, step, judging, reporter)
            verdicts = self._judge(episodes, judging, reporter)
        groups = group_episodes(episodes, verdicts)
        self._demonstrate(groups, step, reporter)
        return groups

    def _act(
        self, student: Student, step: int, judging: GroupJudging | None, reporter: Reporter
    ) -> list[Episode]:
        config = self.config
        tasks = training_tasks(self.tasks, config, step)
        reporter.phase("acting", len(tasks) * config.rollout.group_size)

        def ended(episode: Episode) -> None:
            if judging is not None:
                judging.ended(episode)
            reporter.advance()

        return rollout(
            student,
            config.env,
            tasks,
            group_size=config.rollout.group_size,
            seed=config.seed,
            step=step,
            env_options=config.env_options,
            batch_size=config.rollout.batch_size,
            training=True,
            progress=ended,
        )

    def _judge(
        self, episodes: Sequence[Episode], judging: GroupJudging | None, reporter: Reporter
    ) -> list[Verdict] | None:
        if self.judge is None:
            return None
        reporter.phase("judging", len(episodes))
        if judging is not None:
            return judging.verdicts(progress=lambda _: reporter.advance())
        return score(
            self.judge, episodes, cache=self.verdicts, progress=lambda _: reporter.advance()
        )

    def _demonstrate(self, groups: Sequence[Group], step: int, reporter: Reporter) -> None:
        """Fill the places that the algorithm wants demonstrations for."""
        if self.demonstrator is None:
            return
        # A place is a group, its position in the step, and the slot.
        wanted = [
            (group, position, slot)
            for position, group in enumerate(groups)
            for slot in self.algorithm.slots(group)
        ]
        if not wanted:
            return
        reporter.phase("demonstrating", len(wanted))
        kept_turns = getattr(self.algorithm, "kept_turns", lambda judged: 0)
        kept = [kept_turns(g.student[slot]) if g.student else 0 for g, _, slot in wanted]
        whole = [place for place, turns in zip(wanted, kept, strict=True) if not turns]
        begun = [
            (g, slot, turns) for (g, _, slot), turns in zip(wanted, kept, strict=True) if turns
        ]
        if whole:
            # The seeds of the student's episodes in these places, whether it acted or not.
            shown = self.demonstrator.demonstrate(
                self.config.env,
                [(group.task, (self.config.seed, step, at, slot)) for group, at, slot in whole],
                self.config.env_options,
            )
            self._take([(g, slot) for g, _, slot in whole], shown, [0] * len(whole))
        if begun:
            assert isinstance(self.demonstrator, Continuing)  # refused at the start otherwise
            shown = self.demonstrator.continue_from(
                self.config.env,
                [(group.student[slot].episode, turns) for group, slot, turns in begun],
                self.config.env_options,
            )
            self._take([(g, s) for g, s, _ in begun], shown, [turns for *_, turns in begun])

    def _take(
        self, places: Sequence[tuple[Group, int]], shown: Sequence[Episode], kept: Sequence[int]
    ) -> None:
        """Put the demonstrator's episodes into their places."""
        assert self.demonstrator is not None
        asked = [group.task.id for group, _ in places]
        if (given := [episode.task.id for episode in shown]) != asked:
            raise OVDError(
                f"demonstrator {self.demonstrator.name!r}: expected an episode of each of "
                f"{len(asked)} tasks in their order, got {len(given)} of other tasks or order"
            )
        for (group, slot), episode, turns in zip(places, shown, kept, strict=True):
            if episode.error is None and episode.kept != turns:
                raise OVDError(
                    f"demonstrator {self.demonstrator.name!r}: expected an episode that keeps "
                    f"{turns} of the student's turns, got one that keeps {episode.kept}"
                )
            group.teacher[slot] = episode
