"""Models on the hub: downloads, uploads and their faults, against an imitation of the hub on this machine."""

import io
import json
import pickle
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save
from support.hub import TOKEN, in_place

import visattn
from visattn.cli import main
from visattn.errors import InputError
from visattn.export.hub import Address, address_of, fetch
from visattn.export.shipped import caption_model, load_exported
from visattn.tasks import push
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier

huggingface_hub = pytest.importorskip("huggingface_hub")
# The library sends large files in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

INCLUDED = Path(visattn.__file__).parent / "pretrained"
CAPTIONER, CLASSIFIER = INCLUDED / "captioner_shapes", INCLUDED / "vit_cifar10"


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path):
    with in_place(tmp_path) as served:
        yield served


@pytest.fixture
def scene(tmp_path):
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (53, 71, 3), dtype=np.uint8)).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def cached(tmp_path, name):
    """The whole files of a name in the cache's snapshots."""
    return [path for path in (tmp_path / "cache").rglob(name) if path.exists()]


def refusal(words, capsys):
    """The one sentence on a command's error stream."""
    capsys.readouterr()
    assert main(list(map(str, words))) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:org/name", ("org/name", None)),
        ("hf:o.r-g/n_a.me@v1.0", ("o.r-g/n_a.me", "v1.0")),
        ("org/name@refs/pr/3", ("org/name", "refs/pr/3")),
    ],
)
def test_addresses(text, expected):
    assert address_of(text) == address_of(Path(text)) == Address(*expected)
    assert str(address_of(text)) == f"hf:{text.removeprefix('hf:')}"


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf:name",
        "hf:a/b/c",
        "hf://a/b",
        "hf:a/b@",
        "hf:../b",
        "hf:a/..",
        "hf:a/b@../../x",
        "hf:a/b c",
        "hf:-a/b",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InputError, match=r"not a model on the hub; write hf:ORG/NAME"):
        address_of(text)


def test_a_captioner_is_downloaded_once_and_then_works_offline(hub, tmp_path, scene, capsys, monkeypatch):
    hub.create("lab/shapes", {**files_of(CAPTIONER), "run.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x04."})
    for name, checkpoint in (("ours", "captioner-shapes"), ("theirs", "hf:lab/shapes")):
        words = ["caption", scene, "--checkpoint", checkpoint, "--output", tmp_path / name, "--export", "npz"]
        assert main(list(map(str, words))) == 0
    with np.load(tmp_path / "ours" / "scene.npz") as ours, np.load(tmp_path / "theirs" / "scene.npz") as theirs:
        for key in ours:
            np.testing.assert_array_equal(theirs[key], ours[key])
    asked = {request.rpartition("/")[2] for request in hub.requests if "resolve" in request}
    assert asked == {"model.json", "model.safetensors"}

    downloads = [request for request in hub.requests if request.startswith("GET")]
    caption_model("hf:lab/shapes")
    assert [request for request in hub.requests if request.startswith("GET")] == downloads

    hub.broken, before = True, len(hub.requests)
    first = caption_model(Path("hf:lab/shapes"))
    assert len(hub.requests) > before
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    before = len(hub.requests)
    again = load_model("hf:lab/shapes", Captioner)
    assert len(hub.requests) == before
    torch.testing.assert_close(again.decoder.state_dict(), first.decoder.state_dict())


def test_a_revision_is_the_one_asked_for(hub):
    repository = hub.create("lab/vit", {})
    first = repository.commit(files_of(CLASSIFIER), "old")
    repository.commit(files_of(CAPTIONER), "main")
    assert load_exported("hf:lab/vit@old").class_names[0] == "airplane"
    assert load_exported(f"hf:lab/vit@{first}").class_names[0] == "airplane"
    assert "circle" in load_exported("hf:lab/vit").vocabulary.words
    repository.commit(files_of(CLASSIFIER), "main")  # what was cached of the branch is not what it is now
    assert load_exported("hf:lab/vit").class_names[0] == "airplane"


def test_both_files_are_of_one_commit(hub, monkeypatch):
    """The branch moves between the two downloads."""
    repository = hub.create("lab/moving", files_of(CAPTIONER))
    download = huggingface_hub.hf_hub_download

    def moving(repo, name, **options):
        found = download(repo, name, **options)
        repository.commit(files_of(CLASSIFIER))
        return found

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", moving)
    assert "circle" in load_exported("hf:lab/moving").vocabulary.words


def test_other_commands_read_it_as_a_checkpoint(hub, tmp_path, scene):
    hub.create("lab/vit", files_of(CLASSIFIER))
    words = ["overlay", scene, "--checkpoint", "hf:lab/vit", "--method", "rollout", "--output", tmp_path / "maps"]
    assert main(list(map(str, words))) == 0
    assert (tmp_path / "maps" / "scene.png").exists()
    words = ["export", "--checkpoint", "hf:lab/vit", "--dtype", "float16", "--output", tmp_path / "out"]
    assert main(list(map(str, words))) == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (CLASSIFIER / "model.safetensors").read_bytes()
    ours, theirs = (load_model(path, Classifier).state_dict() for path in ("vit-cifar10", tmp_path / "out"))
    torch.testing.assert_close(theirs, ours)


def test_a_private_model_needs_the_token(hub, monkeypatch, capsys):
    hub.create("lab/secret", files_of(CLASSIFIER), private=True)
    assert "or it is private: log in" in refusal(
        ["overlay", "--checkpoint", "hf:lab/secret", "--output", "x", "y"], capsys
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch(address_of("hf:lab/secret")).name


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_truncated_download_is_no_model(name, hub, tmp_path):
    hub.create("lab/vit", files_of(CLASSIFIER))
    hub.truncated = {name}
    with pytest.raises(InputError, match=r"hf:lab/vit: the transfer failed .* try again"):
        load_exported("hf:lab/vit")
    assert cached(tmp_path, name) == []
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    hub.broken = True  # the other file may be in the cache, which is not the whole
    with pytest.raises(InputError, match=r"not in the cache .*cannot be reached"):
        load_exported("hf:lab/vit")
    hub.broken, hub.truncated = False, set()
    assert load_exported("hf:lab/vit").class_names


def test_other_bytes_are_found_and_forgotten(hub, tmp_path):
    hub.create("lab/vit", files_of(CLASSIFIER))
    hub.garbled = {"model.safetensors"}
    with pytest.raises(InputError, match=r"model.safetensors of hf:lab/vit .*removed"):
        load_exported("hf:lab/vit")
    assert cached(tmp_path, "model.safetensors") == []
    hub.garbled = set()
    assert load_exported("hf:lab/vit").class_names
    blob = cached(tmp_path, "model.safetensors")[0].resolve()  # the disk fails later
    blob.write_bytes(blob.read_bytes()[:-9])
    with pytest.raises(InputError, match="is not the exported file"):
        load_exported("hf:lab/vit")
    assert load_exported("hf:lab/vit").class_names


def test_what_is_missing_is_named(hub, capsys, monkeypatch):
    hub.create("lab/vit", files_of(CLASSIFIER))
    hub.create("lab/pickles", {"pytorch_model.bin": pickle.dumps([1]), "modeling.py": b"import os", "README.md": b"#"})
    hub.create("lab/half", {"model.json": (CLASSIFIER / "model.json").read_bytes()})
    hub.create("lab/other", {"model.json": b'{"model_type": "bert"}', "model.safetensors": save({"a": torch.ones(3)})})
    for address, said in (
        ("hf:lab/none", f"no model lab/none at {hub.address}"),
        ("hf:lab/vit@v9", "lab/vit has no revision 'v9'"),
        ("hf:lab/pickles", "hf:lab/pickles has no model.json .* never loaded"),
        ("hf:lab/half", "hf:lab/half has no model.json with model.safetensors"),
        ("hf:lab/other", "hf:lab/other/model.json is not of format 1"),
    ):
        assert re.search(said, refusal(["export", "--checkpoint", address, "--output", "out"], capsys))
    assert not any("pytorch_model" in request or "modeling" in request for request in hub.requests)
    assert not Path("out").exists()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids" in refusal(["export", "--checkpoint", "hf:lab/vit", "--output", "out"], capsys)


def test_a_hub_that_cannot_be_reached_is_named(hub, monkeypatch, capsys):
    hub.broken = True
    said = refusal(["export", "--checkpoint", "hf:lab/vit", "--output", "out"], capsys)
    assert f"{hub.address} cannot be reached or fails" in said


def test_without_a_network_it_says_so_at_once(hub, exported, scene, monkeypatch, capsys):
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nowhere)
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    for words in (["export", "--output", "out"], ["caption", scene], ["overlay", "--output", "out", scene]):
        said = refusal([*words, "--checkpoint", "hf:lab/vit"], capsys)
        assert "hf:lab/vit is not in the cache" in said
        assert f"{nowhere} cannot be reached" in said
    assert f"{nowhere}: " in refusal(["push", exported, "lab/vit"], capsys)
    assert waits == []


def test_a_damaged_description_is_named_by_its_address(hub):
    described = json.loads((CLASSIFIER / "model.json").read_text())
    described["model"]["class_path"] = "os.system"
    hub.create("lab/evil", {**files_of(CLASSIFIER), "model.json": json.dumps(described).encode()})
    with pytest.raises(InputError, match=r"^hf:lab/evil/model\.json: .*'os\.system'"):
        load_exported("hf:lab/evil")


@pytest.fixture
def exported(tmp_path):
    """A folder with what can stand beside an exported model."""
    folder = tmp_path / "exported"
    folder.mkdir()
    for name in ("model.json", "model.safetensors"):
        (folder / name).write_bytes((CAPTIONER / name).read_bytes())
    scores = {"scores": {"CIDEr-D": 4.79123, "BLEU-4": 0.5}, "signature": "tok:ptb|refs:5", "per_image": {"1": {}}}
    (folder / "scores.json").write_text(json.dumps(scores))
    (folder / "notes.txt").write_text("for me alone")
    (folder / ".git").mkdir()
    (folder / ".git" / "hook.py").write_text("import os")
    return folder


def header_of(card):
    return yaml.safe_load(card.partition("---\n")[2].partition("---\n")[0])


def test_a_pushed_folder_comes_back(hub, exported, tmp_path, scene, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (photo := Image.open(scene)).getexif()[0x010E] = "where I live"
    photo.resize((2111, 1607)).save(tmp_path / "photo.jpg", exif=photo.getexif())
    words = ["push", exported, "lab/shapes", "--license", "cc-by-4.0", "--picture", tmp_path / "photo.jpg"]
    assert main(list(map(str, [*words, "--message", "First"]))) == 0
    said = capsys.readouterr().out
    assert "notes.txt  stays here" in said
    assert "use it with --checkpoint hf:lab/shapes" in said
    repository = hub.repositories["lab/shapes"]
    assert hub.messages == ["First"]
    assert len(repository.commits) == 2  # the empty one of a new repository, and ours with everything
    files = repository.commits[repository.branches["main"]]
    assert sorted(files) == ["README.md", "example.jpg", "model.json", "model.safetensors", "scores.json"]
    assert files["model.safetensors"] == (exported / "model.safetensors").read_bytes()
    with Image.open(io.BytesIO(files["example.jpg"])) as example:
        assert max(example.size) == 1024
        assert not example.getexif()
    ours, theirs = caption_model("captioner-shapes"), caption_model("hf:lab/shapes")
    torch.testing.assert_close(theirs.state_dict(), ours.state_dict())

    card = files["README.md"].decode()
    assert header_of(card) == {
        "license": "cc-by-4.0",
        "library_name": "visattn",
        "pipeline_tag": "image-to-text",
        "tags": ["visattn", "attention", "image-captioning", "explainability", "pytorch", "safetensors"],
        "widget": [{"src": f"{hub.address}/lab/shapes/resolve/main/example.jpg", "example_title": "Example"}],
    }
    for part in ("# shapes", "`LuongDecoder` with `SoftAttention`", "| `CIDEr-D` | 4.791 |", "`tok:ptb/refs:5`"):
        assert part in card
    (program,) = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    monkeypatch.chdir(tmp_path)
    exec(program, names := {})
    assert names["caption"].weights.shape == (len(names["caption"].words), 8, 8)


def test_a_pushed_captioner_decodes_as_it_was_exported(hub, scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder, decoding = tmp_path / "exported", ["--beam", "7", "--length-penalty", "0.3", "--no-repeat", "1"]
    assert main(["export", "--checkpoint", "captioner-shapes", "--output", str(folder), *decoding]) == 0
    assert main(["push", str(folder), "lab/shapes"]) == 0
    said = {}
    for name, words in {
        "original": ["captioner-shapes", *decoding],
        "pushed": ["hf:lab/shapes"],
        "greedy": ["captioner-shapes"],
        "overridden": ["hf:lab/shapes", "--decode", "greedy", "--no-repeat", "0"],
    }.items():
        output = tmp_path / name
        words = ["caption", str(scene), "--output", str(output), "--export", "npz", "--checkpoint", *words]
        assert main(words) == 0
        said[name] = json.loads((output / "captions.json").read_text())[0]["caption"]
    assert said["pushed"] == said["original"] != said["greedy"] == said["overridden"]
    repository = hub.repositories["lab/shapes"]
    card = repository.commits[repository.branches["main"]]["README.md"].decode()
    assert "`BeamSearch` (size 7, best 1, length_penalty 0.3)" in card


def test_a_classifier_is_pushed_to_a_branch_with_its_own_card(hub, tmp_path, monkeypatch, scene):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = tmp_path / "vit"
    folder.mkdir()
    for name, data in files_of(CLASSIFIER).items():
        (folder / name).write_bytes(data)
    own = "---\nlicense: mit\n---\n# Mine\n"
    (folder / "README.md").write_text(own)
    assert main(["push", str(folder), "hf:lab/vit", "--private", "--revision", "v2"]) == 0
    repository = hub.repositories["lab/vit"]
    assert repository.private
    assert repository.commits[repository.branches["main"]] == {}
    card = repository.commits[repository.branches["v2"]]["README.md"].decode()
    assert header_of(card)["license"] == "mit"
    assert header_of(card)["pipeline_tag"] == "image-classification"
    assert card.endswith("---\n\n# Mine\n")
    assert load_exported("hf:lab/vit@v2").class_names[0] == "airplane"
    (folder / "README.md").unlink()
    files = push.prepare(folder, address_of("hf:lab/vit@v2")).files
    assert "Its 10 classes: `airplane`, `automobile`" in files["README.md"].decode()
    scene.rename(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", files["README.md"].decode(), flags=re.S)[0], names := {})
    assert names["logits"].shape == (1, 10)


def test_a_dry_run_shows_the_card_and_asks_nothing(hub, exported, capsys):
    assert main(["push", str(exported), "lab/shapes", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith('---\nlicense: "unknown"\n')
    assert "model.safetensors  1.15 MB" in said
    assert "nothing was uploaded" in said
    assert hub.requests == []


def add(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def zipped(name):
    torch.save({"a": 1}, stream := io.BytesIO())
    return lambda folder: (folder / name).write_bytes(stream.getvalue())


UNFIT = {
    "no folder": (lambda folder: folder.rename(folder.with_name("away")), "exported is not a folder"),
    "no export": (lambda folder: (folder / "model.json").unlink(), "there is no .*model.json; visattn export writes"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "there is no .*model.safetensors"),
    "other weights": (add("model.safetensors", b"\x00" * 64), "its SHA-256 differs"),
    "a checkpoint": (add("best.ckpt", b"anything"), "best.ckpt may be a pickle"),
    "a pickle by another name": (add("vocabulary.dat", pickle.dumps(["a"])), "vocabulary.dat may be a pickle"),
    "a zipped pickle": (zipped("weights.dat"), "weights.dat may be a pickle"),
    "code": (add("modeling.py", b"import os"), "modeling.py is code"),
    "scores that are none": (add("scores.json", b"[1"), "scores.json is not valid JSON"),
    "an image that is none": (add("example.png", b"\x89PNG"), "example.png"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_no_export_or_might_run_is_not_pushed(name, hub, exported, capsys):
    change, said = UNFIT[name]
    change(exported)
    assert re.search(said, refusal(["push", exported, "lab/shapes"], capsys))
    assert hub.requests == []


def test_what_the_hub_refuses_is_a_sentence(hub, exported, monkeypatch, capsys):
    push_it = ["push", exported, "lab/shapes"]
    said = refusal(push_it, capsys)
    assert "hf auth login" in said
    assert hub.address in said
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    before = hub.create("lab/shapes", {"README.md": b"#"}).branches["main"]
    assert "exists and is public" in refusal([*push_it, "--private"], capsys)
    assert "both hf:lab/shapes@a and --revision" in refusal(["push", exported, "lab/shapes@a", "--revision=b"], capsys)
    assert "write hf:ORG/NAME" in refusal(["push", exported, "shapes"], capsys)
    assert "--license is 'Mine!'" in refusal([*push_it, "--license", "Mine!"], capsys)
    assert "--message is empty" in refusal([*push_it, "--message", " "], capsys)
    hub.broken = True
    assert "try again" in refusal(push_it, capsys)
    hub.broken = False
    monkeypatch.setattr(hub, "large", ())  # within the commit
    assert hub.repositories["lab/shapes"].branches["main"] == before
    assert main(list(map(str, push_it))) == 0
    assert caption_model("hf:lab/shapes").vocabulary


def test_without_the_library_it_says_what_to_install(exported, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for words in (["push", exported, "a/b"], ["export", "--checkpoint", "hf:a/b", "--output", "out"]):
        assert "pip install 'visattn[hub]'" in refusal(words, capsys)
