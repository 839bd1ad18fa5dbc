"""An environment's system message: read by whoever acts, kept with the episode, in every token."""

from agents.chat_dialect import ChatDialect
from agents.episode import Episode, Turn
from agents.inline_dialect import InlineDialect
from agents.kept_turns import keep_turns
from agents.openai_backend import messages_of
from agents.protocol import Act
from agents.rollout import rollout
from agents.student import Student
from ovd_envs.env import Reply, TextEnv
from ovd_envs.task import ListTasks, Task
from tests.agents.test_student import Recorder
from tests.chat_templates import made_tokenizer
from tests.tiny import tiny_tokenizer

TASKS = [Task(f"t/{i}", f"question {i}", (str(i),)) for i in range(4)]
DIALECT = ChatDialect(tiny_tokenizer())


class Told(TextEnv):
    """Two turns under a system message of the task's own; odd tasks have none."""

    def __init__(self):
        super().__init__(ListTasks("t", train=TASKS), budget={"turns": 2})

    def observe(self, task):
        number = int(task.id[2:])
        self.system = None if number % 2 else f"Be number {number}."
        return task.question

    def respond(self, action):
        return Reply("go on")


class Echo:
    name = "echo"

    def act(self, episodes):
        return [Act(str(episode.system)) for episode in episodes]


def test_who_acts_reads_it():
    episodes = rollout(Echo(), Told, TASKS)
    expected = ["Be number 0.", "None", "Be number 2.", "None"]
    assert [episode.answer for episode in episodes] == expected
    again = [Episode.from_dict(episode.to_dict()) for episode in episodes]
    assert [episode.system for episode in again] == ["Be number 0.", None, "Be number 2.", None]
    in_processes = rollout(Echo(), Told, TASKS, mode="free", workers=1)
    assert [episode.answer for episode in in_processes] == expected


def test_it_is_in_the_prompt_and_in_the_row():
    backend = Recorder()
    episodes = rollout(Student(backend), Told, TASKS, batch_size=1)
    for place, episode in enumerate(episodes):
        prompt = DIALECT.open(episode.observation, episode.system)
        assert list(backend.asked[2 * place].ids) == prompt
        [segment] = episode.segments
        assert segment.ids[: len(prompt)] == prompt
        [again] = DIALECT.segments(
            Episode(
                episode.task,
                "e",
                "script",
                observation=episode.observation,
                turns=[Turn("a", "go on"), Turn("b")],
                system=episode.system,
            )
        )
        assert again.ids[: len(prompt)] == prompt
    assert DIALECT.open("question 0", "Be number 0.") != DIALECT.open("question 0")


def test_a_student_with_one_of_its_own_keeps_it():
    backend = Recorder()
    rollout(Student(backend, system="I am I."), Told, TASKS[:1])
    assert list(backend.asked[0].ids) == DIALECT.open("question 0", "I am I.")


def test_an_api_is_told_and_kept_turns_keep_it():
    [episode] = rollout(Echo(), Told, TASKS[:1])
    assert messages_of(episode)[0] == {"role": "system", "content": "Be number 0."}
    assert messages_of(episode)[1] == {"role": "user", "content": "question 0"}
    assert keep_turns(episode, 1).system == "Be number 0."


def test_a_state_put_back_brings_its_message():
    class Kept(Told):
        def save_state(self):
            return None

        def load_state(self, state):
            pass

    for world in (Told, Kept):
        env, other = world(), world()
        env.reset(options={"task": "t/2"})
        other.reset(options={"task": "t/1"})
        other.restore(env.snapshot())
        assert other.system == "Be number 2."


def test_every_dialect_and_every_turn_has_it():
    """Inline, and a template that writes the conversation anew for each turn."""
    told = Episode(TASKS[0], "e", "s", observation="q", system="Be brief.")
    told.turns = [Turn("<think>\nhm\n</think>\n\na", "go on"), Turn("b")]
    inline = InlineDialect(tiny_tokenizer())
    [segment] = inline.segments(told)
    prompt = inline.open("q", "Be brief.")
    assert segment.ids[: len(prompt)] == prompt != inline.open("q")
    thinking = ChatDialect(made_tokenizer("qwen3"))
    segments = thinking.segments(told)
    assert len(segments) == 2
    for segment in segments:
        assert "Be brief." in thinking.tokenizer.decode(segment.ids)
