"""An environment of your own in thirty lines: guess a number.

    python examples/own_environment.py

In a package of your own, name the class as an entry point. After ``pip install`` it is in
``ovd envs``, ``ovd run``, ``ovd play`` and ``gymnasium.make``:

    [project.entry-points."ovd.environments"]
    "me/Guess-v0" = "my_package:Guess"
"""

import re

import ovd_envs
from ovd_envs import Budget, ListTasks, Reply, Task, TextEnv
from ovd_envs.checker import check_environment


def numbers(first):
    """Tasks: the question is the same for none of them, and the answer is not in it."""
    return [
        Task(f"guess-{n}", f"Game {n * 37 % 101}: guess my number, 1 to 20.", (str(n),))
        for n in range(first, 21, 2)
    ]


class Guess(TextEnv):
    """Guess a number from 1 to 20 in five turns."""

    def __init__(self, *, split="train", render_mode=None):
        tasks = ListTasks("guess", train=numbers(1), test=numbers(2))
        super().__init__(tasks, split=split, budget=Budget(turns=5), render_mode=render_mode)

    def observe(self, task):
        """The first observation."""
        return task.question

    def respond(self, action):
        """Higher or lower; the episode ends where the number is found, or after five turns."""
        said = re.search(r"\d{1,2}", action)
        if said is None:
            return Reply("Say a number.")
        difference = int(self.task.answers[0]) - int(said.group())
        if difference == 0:
            return Reply("Right!", reward=1.0, end="answered")
        return Reply("Higher." if difference > 0 else "Lower.")


ovd_envs.register("me/Guess-v0", Guess)

if __name__ == "__main__":
    for result in check_environment("me/Guess-v0"):
        print("passed" if result.passed else "FAILED", f"{result.name}: {result.detail}")
    env = ovd_envs.make("me/Guess-v0", render_mode="human")
    env.reset(seed=0)
    low, high, done = 1, 20, False
    while not done:
        middle = (low + high) // 2
        observation, reward, terminated, truncated, info = env.step(f"Is it {middle}?")
        low, high = (middle + 1, high) if observation == "Higher." else (low, middle - 1)
        done = terminated or truncated
    print(f"reward {reward:g}, {info['end_reason']}, it was {info['answers'][0]}")
