"""Step through an episode in Python: two attempts at a word problem.

python examples/step_through.py
"""

import ovd_envs

env = ovd_envs.make("ovd/Math-v0", level="word-2", attempts=2)

observation, info = env.reset(seed=7)
print(observation)
print(info)

# A first attempt without an answer: the environment says so, and the episode goes on.
observation, reward, terminated, truncated, info = env.step("Let me think about it.")
print(observation, reward, info["outcome"])

# What a student would have to find out; a script may look.
for equation in env.task.metadata["solution"]:
    print(" ", equation)
answer = env.task.answers[0]

observation, reward, terminated, truncated, info = env.step(f"So it is \\boxed{{{answer}}}.")
print(reward, terminated, truncated)
print(info)

# The same task again, by its id; and the same environment through Gymnasium.
print(env.reset(options={"task": info["task"]})[0])
