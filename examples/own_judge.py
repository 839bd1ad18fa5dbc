"""A judge of your own: one class, and OVD scores, caches and reports with it.

    .venv/bin/python examples/own_judge.py

To use it from the command line (`ovd score episodes.jsonl --judge brief`), name it in your
package's pyproject.toml and install the package:

    [project.entry-points."ovd.judges"]
    brief = "my_package:BriefJudge"
"""

from collections.abc import Sequence

import agents
import ovd_envs
from agents import Episode
from agents.scripted import ScriptedAgent
from teachers import Verdict, score


class BriefJudge:
    """Likes right answers, and short ones better."""

    name = "brief"

    def __init__(self, words: int = 8) -> None:
        self.words = words
        self.fingerprint = f"brief/1 {words}"  # what a verdict depends on: the cache's key

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for each episode, in any order; a score is 0 to 9."""
        return [self._verdict(episode) for episode in episodes]

    def _verdict(self, episode: Episode) -> Verdict:
        if not episode.turns:  # a judge that cannot tell says so: an error is never a score
            return Verdict(episode.id, self.name, None, error="the episode has no message")
        words = len(episode.answer.split())
        points = 9 - max(0, words - self.words) if episode.reward == 1 else 0
        return Verdict(episode.id, self.name, max(points, 0), f"{words} words, {episode.reward=}.")


def main() -> None:
    """Judge a short answer, a long one and a wrong one to the same question."""
    task = ovd_envs.make("ovd/Math-v0", level="addition").tasks.task("test", 0)
    box = f"\\boxed{{{task.answers[0]}}}"
    long = f"Well, let me see, I think that it must be {box}"
    messages = iter([f"It is {box}", long, "\\boxed{0}"])
    agent = ScriptedAgent(lambda episode: next(messages))
    episodes = agents.rollout(agent, "ovd/Math-v0", [task], group_size=3)
    for episode, verdict in zip(episodes, score(BriefJudge(), episodes), strict=True):
        print(f"{verdict.score}  {episode.answer}  ({verdict.reason})")


if __name__ == "__main__":
    main()
