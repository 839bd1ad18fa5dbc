"""A person and a student in one episode: who wrote what, and the exact tokens of both."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agents import rollout
from agents.chat_dialect import ChatDialect
from agents.episode import read_episodes, write_episodes
from agents.human import Left
from agents.protocol import Capabilities, Completion
from agents.scripted import ScriptedAgent
from agents.side_by_side import SideBySide
from agents.student import Student
from agents.transformers_backend import TransformersBackend
from ovd_envs import ListTasks, Reply, Task, TextEnv
from tests.chat_templates import made_tokenizer
from tests.tiny import tiny_model, tiny_tokenizer

TURNS = 4


class Echo(TextEnv):
    """Says what was said; four turns."""

    def __init__(self):
        tasks = ListTasks("echo", train=[Task("echo/0", "Say something.", ("x",))])
        super().__init__(tasks, budget={"turns": TURNS})

    def observe(self, task):
        return task.question

    def respond(self, action):
        return Reply(f"You said {len(action)} characters.")


class Recording(TransformersBackend):
    """The tiny model, which remembers what it was asked and what it said."""

    def __init__(self, dialect="chat"):
        super().__init__(tiny_model(), tiny_tokenizer(), name="tiny", dialect=dialect)
        self.asked, self.said = [], []

    def generate(self, requests):
        found = super().generate(requests)
        self.asked += requests
        self.said += found
        return found


BACKENDS = {name: Recording(name) for name in ("chat", "inline")}


def play(lines, *, dialect="chat", student=None, seed=0):
    """The episode that these lines make, and what was on the screen."""
    backend = BACKENDS[dialect]
    backend.asked, backend.said = [], []
    student = student or Student(backend, max_tokens=6, name="pupil")
    screen = Console(file=io.StringIO(), width=80)
    left = iter(lines)

    def read(prompt):
        screen.print(prompt, end="", markup=False)
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    agent = SideBySide(student, console=screen, read=read)
    world = Echo()
    [episode] = rollout(agent, lambda: world, [world.tasks.task("train", 0)], seed=seed)
    assert next(left, None) is None, "a line was never read"
    return episode, screen.file.getvalue(), backend


def expected_segment(episode, backend):
    """Ids, mask and logprobs, put together from what each of the two wrote."""
    dialect = backend.dialect
    ids, mask, logprobs = dialect.open(episode.observation), [], []
    mask, logprobs = [0] * len(ids), [0.0] * len(ids)
    for number, (turn, author) in enumerate(
        zip(episode.turns, episode.info["written_by"], strict=True)
    ):
        if number:
            between = dialect.follow(ids[-1:], episode.turns[number - 1].observation)
            ids += between
            mask += [0] * len(between)
            logprobs += [0.0] * len(between)
        assert list(backend.asked[number].ids) == ids, "the model read something else"
        if author == "human":
            own = dialect.encode_turn(turn.action)
            ids += own
            mask += [0] * len(own)
            logprobs += [0.0] * len(own)
        else:
            said = backend.said[number]
            ids += said.ids
            mask += [1] * len(said.ids)
            logprobs += said.logprobs
    return ids, mask, logprobs


# What a person may do at a turn: send the student's message, or write one.
choices = st.lists(
    st.one_of(st.just(""), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)),
    min_size=TURNS,
    max_size=TURNS,
).map(lambda texts: [text.replace("\\", "").replace("/", "") for text in texts])


@given(choices, st.sampled_from(["chat", "inline"]), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_the_tokens_are_what_each_wrote_and_what_the_student_read(lines, dialect, seed):
    episode, _, backend = play(lines, dialect=dialect, seed=seed)
    assert len(backend.asked) == TURNS, "sampled once a turn"
    authors = ["human" if line.strip() else "pupil" for line in lines]
    assert episode.info["written_by"] == authors
    for line, turn, author, said in zip(lines, episode.turns, authors, backend.said, strict=True):
        if author == "human":
            assert turn.action == line
        else:
            assert turn.action.startswith(said.text)
    [segment] = episode.segments
    assert (segment.ids, segment.mask, segment.logprobs) == expected_segment(episode, backend)


def test_no_past_turn_is_written_again():
    episode, _, backend = play(["", "mine", "", "mine again"])
    for earlier, later in zip(backend.asked, backend.asked[1:], strict=False):
        assert list(later.ids)[: len(earlier.ids)] == list(earlier.ids)
    [segment] = episode.segments
    assert segment.ids[: len(backend.asked[-1].ids)] == list(backend.asked[-1].ids)


def test_a_message_that_was_not_sent_leaves_no_trace():
    episode, screen, backend = play(["one", "two", "three", "four"])
    [segment] = episode.segments
    assert episode.num_sampled_tokens == 0
    assert set(segment.logprobs) == {0.0}
    assert screen.count("pupil would say") == TURNS
    text = backend.dialect.tokenizer.decode(segment.ids)
    assert [f"assistant\n{word}<|im_end|>" in text for word in ("one", "two", "three", "four")] == [
        True
    ] * 4


def test_a_student_alone_says_what_it_would_have_said_beside_a_person():
    alone, screen, _ = play(["/student"], seed=3)
    beside, _, _ = play(["", "", "", ""], seed=3)
    assert alone.segments == beside.segments
    assert [t.action for t in alone.turns] == [t.action for t in beside.turns]
    assert alone.info["written_by"] == ["pupil"] * TURNS
    assert (screen.count("would say"), screen.count("pupil says")) == (1, TURNS - 1)


def test_handing_over_and_taking_back():
    episode, screen, backend = play(["mine", "/student", "", "/me", "mine too"])
    assert episode.info["written_by"] == ["human", "pupil", "pupil", "human"]
    assert [episode.turns[0].action, episode.turns[3].action] == ["mine", "mine too"]
    [segment] = episode.segments
    assert (segment.ids, segment.mask, segment.logprobs) == expected_segment(episode, backend)
    assert screen.count("/me: you go on") == 2


def test_back_in_the_same_turn_and_over_again():
    episode, _, _ = play(["/student", "/me", "/student", "/me", "", "mine"])
    assert episode.info["written_by"] == ["pupil", "pupil", "pupil", "human"]


def test_a_slip_is_not_sent():
    episode, screen, backend = play(["/studnet", "/me", " /path", "", "/student", "oops", ""])
    assert episode.turns[0].action == " /path"
    assert episode.info["written_by"] == ["human", "pupil", "pupil", "pupil"]
    assert "no command /studnet" in screen
    assert "it is your turn already" in screen
    assert "it is pupil's turn: /me takes back" in screen
    assert len(backend.asked) == TURNS, "sampled once a turn, however often one is asked"


def test_a_message_of_several_lines():
    episode, _, _ = play(["/a\\", "b", "\\", "/student", "", ""])
    assert [turn.action for turn in episode.turns][:2] == ["/a\nb", "\n/student"]


def test_an_input_that_ends_ends_the_episode_only_where_the_person_has_the_say():
    with pytest.raises(Left, match="ended in turn 2"):
        play([""])
    episode, screen, _ = play(["/student", ""])
    assert episode.info["written_by"] == ["pupil"] * TURNS
    assert screen.count("watching ›") == 2, "asked until the input ended, and not again"


def test_who_wrote_what_is_kept_in_a_file(tmp_path):
    episode, _, _ = play(["mine", "", "/student", "/me", "mine too"])
    write_episodes(tmp_path / "e.jsonl", [episode])
    [read] = read_episodes(tmp_path / "e.jsonl")
    assert read == episode
    assert read.agent == "human+pupil"
    row = json.loads((tmp_path / "e.jsonl").read_text())
    assert row["info"]["written_by"] == ["human", "pupil", "pupil", "human"]
    assert (row["schema"], len(row["turns"])) == (1, 4)


def test_a_student_without_tokens_reads_the_person_s_messages_as_its_own():
    read = []

    def message(episode):
        read.append([turn.action for turn in episode.turns])
        return f"draft {len(episode.turns)}"

    student = ScriptedAgent(message, "api")
    episode, _, _ = play(["", "mine", "", ""], student=student)
    assert episode.segments == []
    assert read[-1] == ["draft 0", "mine", "draft 2"]
    assert episode.info["written_by"] == ["api", "human", "api", "api"]


def test_a_full_context_ends_the_episode_and_is_told():
    student = Student(BACKENDS["chat"], max_tokens=6, max_context=100, name="pupil")
    episode, screen, _ = play(["x" * 40], student=student)
    assert episode.end_reason == "context_limit"
    assert episode.info["written_by"] == ["human"]
    assert "pupil has no room left for a message" in screen


def test_what_a_student_writes_is_shown_and_not_obeyed():
    hostile = "\x1b[2J\x1b[31m[bold]x[/bold] \u202eevil"
    student = ScriptedAgent(lambda episode: hostile, "ev\x1bil")
    episode, screen, _ = play(["", "mine", "/student", ""], student=student)
    assert not set(screen) & {"\x1b", "\u202e"}
    assert "␛[2J␛[31m[bold]x[/bold]" in screen
    assert episode.turns[0].action == hostile


def test_a_thinking_student_whose_past_thoughts_are_dropped():
    dialect = ChatDialect(made_tokenizer("qwen3"))

    class Thinker:
        capabilities = Capabilities(token_ids=True, logprobs=True)
        name, context_length = "thinker", 10_000
        asked, said = [], []

        def __init__(self):
            self.dialect = dialect

        def generate(self, requests):
            [request] = requests
            self.asked.append(list(request.ids))
            ids = dialect.encode_turn(f"<think>\nhm\n</think>\n\nreply {len(self.asked)}")
            self.said.append(Completion(ids, [-0.5] * len(ids), "end_of_turn", dialect.decode(ids)))
            return self.said[-1:]

    backend = Thinker()
    episode, _, _ = play(["", "mine", "", "mine too"], student=Student(backend, name="pupil"))
    assert episode.info["written_by"] == ["pupil", "human", "pupil", "human"]
    first, second, third = episode.segments  # a thought is dropped after each of its turns
    assert first.ids == backend.asked[0] + backend.said[0].ids
    assert second.ids == backend.asked[2] + backend.said[2].ids
    assert third.ids == backend.asked[3] + dialect.encode_turn("mine too")
    own = backend.asked[1] + dialect.encode_turn("mine")
    assert second.ids[: len(own)] == own, "what the person wrote is read as it was written"
    for segment, said in ((first, backend.said[0]), (second, backend.said[2])):
        assert segment.mask[-len(said.ids) :] == [1] * len(said.ids)
        assert sum(segment.mask) == len(said.ids)
    assert sum(third.mask) == 0
