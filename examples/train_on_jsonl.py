"""Train on your own questions and answers: a JSONL file, a configuration, a trainer.

python examples/train_on_jsonl.py                       # questions made up here, a few minutes
python examples/train_on_jsonl.py mine.jsonl --steps 50
"""

import argparse
import json
from pathlib import Path

from training import Trainer, load_config
from training.display import RunDisplay

CONFIG = Path(__file__).with_name("math_cpu.yaml")


def write_questions(path: Path) -> Path:
    """A file of one's own: a question and its answer in each line."""
    rows = [
        {"question": f"How many days are {weeks} weeks?", "answer": 7 * weeks}
        for weeks in range(2, 100)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def main() -> None:
    """Train on the file of the command line."""
    parser = argparse.ArgumentParser(description="Train on a JSONL of question and answer.")
    parser.add_argument("questions", nargs="?", type=Path, help="JSONL; default: made up here")
    parser.add_argument("--student", default="smollm2-135m", help="model to train")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--run", type=Path, default=Path("runs/own-jsonl"))
    options = parser.parse_args()
    options.run.parent.mkdir(parents=True, exist_ok=True)
    questions = options.questions or write_questions(options.run.parent / "questions.jsonl")
    config = load_config(
        CONFIG,
        [
            f"student={options.student}",
            f"env_options={{source: {questions}}}",  # one question in ten is kept for the test
            f"optimizer.steps={options.steps}",
            "rollout.tasks_per_step=8",
            "evaluation.tasks=8",
        ],
    )
    with RunDisplay(config, str(options.run)) as display:
        summary = Trainer(config, options.run, resume=True, reporter=display).train()
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
