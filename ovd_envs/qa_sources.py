"""Question answering from the Hugging Face hub by short names: FlashRAG's sets, Search-R1's mix."""

from __future__ import annotations

from ovd_envs.errors import TaskError
from ovd_envs.record_tasks import HubTasks

#: https://huggingface.co/datasets/RUC-NLPIR/FlashRAG_datasets
FLASHRAG_DATASET = "RUC-NLPIR/FlashRAG_datasets"
#: https://huggingface.co/datasets/PeterJinGo/nq_hotpotqa_train: trains on NQ and HotpotQA, tests on
#: all seven sets; each task's metadata tells its "data_source".
SEARCH_R1_DATASET = "PeterJinGo/nq_hotpotqa_train"

_ALL = {"train": "train", "dev": "dev", "test": "test"}
#: Without a public test: the dev split is the test, as in Search-R1's evaluation.
_NO_TEST = {"train": "train", "test": "dev"}
_ONLY_TEST = {"test": "test"}

#: Sets of FlashRAG's collection with our splits and theirs.
FLASHRAG = {
    "nq": _ALL,
    "triviaqa": _ALL,
    "popqa": _ONLY_TEST,
    "hotpotqa": _NO_TEST,
    "2wikimultihopqa": _NO_TEST,
    "musique": _NO_TEST,
    "bamboogle": _ONLY_TEST,
}


def flashrag_tasks(name: str, dataset: str = FLASHRAG_DATASET) -> HubTasks:
    """The set ``name`` of FlashRAG's collection ("2wiki" is short for "2wikimultihopqa").

    ``dataset`` is where it is: the hub's, or a folder that is a copy of it. Raises ``TaskError``
    for an unknown name, or where the dataset cannot be loaded.
    """
    config = "2wikimultihopqa" if name == "2wiki" else name
    if config not in FLASHRAG:
        raise TaskError(
            f"flashrag: expected one of {', '.join(FLASHRAG)}, got {name!r}; "
            f"others of its sets: hf:{FLASHRAG_DATASET}:NAME"
        )
    return HubTasks(dataset, config, splits=FLASHRAG[config])


def search_r1_tasks(dataset: str = SEARCH_R1_DATASET) -> HubTasks:
    """What Search-R1 trains on and is tested on.

    ``dataset`` is where it is: the hub's, or a folder with train.parquet and test.parquet. Raises
    ``TaskError`` where it cannot be loaded.
    """
    # File by file: the metadata of the two have different columns, which datasets refuses.
    return HubTasks(dataset, files={"train": "train.parquet", "test": "test.parquet"})
