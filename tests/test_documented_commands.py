"""Every command of README and docs runs: one of each kind, in small, in a folder with what the pages name.

A kind is a command with the names of its options. A new one runs as the others do: if it names a file that is not in
the folder, add that to `reader`; if it takes long, give it options in `SMALL`. What no test runs as it stands is in
`ELSEWHERE`, with what runs it instead, or in `LATER`, of which `VISATTN_DOCUMENTS=all` runs each command unchanged.
"""

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import FAST, SMALL_SHAPES, fit, write_cifar, write_karpathy, write_mnist
from PIL import Image
from support.documents import PAGES, ROOT, commands, of_visattn
from support.hub import TOKEN, in_place
from support.shards import files, write_shard

import visattn
from visattn.cli import TRAINING, main
from visattn.data.shapes import make_scene

INCLUDED = Path(visattn.__file__).parent / "pretrained"
# The hub's library sends large files in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
IN_FULL = os.environ.get("VISATTN_DOCUMENTS") == "all"

ELSEWHERE = {
    r"pip install uv|uv sync.*": "installs packages; .ci/run does it",
    r"uv run pytest.*|uv run ruff.*|uv run mypy|\.ci/run": "is what runs this test",
    r"\.ci/wheel": "is a job of the workflow",
    r"uv run --group docs (mkdocs|jupytext) .*": "builds the site: a job of the workflow",
    r"uv run python docs/learn/.*": "tests/test_learn.py runs every chapter",
    r"uv run python docs/examples/coco_head\.py .*": "tests/test_coco_head.py runs it",
    r"uv run visattn rank .* runs/head/held_out": "needs that head; tests/test_rank_script.py ranks such photographs",
    r".*visattn fit .* --data.annotations mixed\.json .*": "needs outlines: tests/test_supervision.py",
    r".*visattn curves runs/compare/.*": "needs those runs; tests/test_curves.py draws along time",
    r".* --import my_(attention|data)\.py .*": "tests/test_own_classes.py runs these pages",
    r".*visattn app.*": "serves until it is stopped: tests/test_app.py",
    r".*visattn gpu-check .*": "needs a GPU; in small tests/test_gpu_check.py",
    r".*visattn prepare-coco .*": "downloads 20 GB; tests/test_prepare_coco.py downloads from this machine",
    r".*pipe:aws s3 .*": "needs object storage; tests/test_data_shards.py reads from pipes",
    r".* --test-time-registers .*": "needs trained weights; tests/test_explain_registers.py makes some by hand",
    r".* --model hf:google/siglip\S* --text .*": "needs a model of the hub; tests/test_explain_texts.py makes one",
}
LATER = {
    r"uv run visattn demo": "10 minutes; in small tests/test_scripts.py",
    r".*visattn compare.*": "hours; in small tests/test_compare.py",
    r".*visattn glimpses .*": "an hour; in small tests/test_glimpses_run.py",
    r".*visattn export .* --format both .*": "7 seconds; tests/test_own_classes.py and tests/test_export_onnx.py",
    r".*visattn evaluate .* --meteor .*": "needs Java and the extra coco; tests/test_evaluate.py, where they are",
}

# A backbone and a decoder that take a second; their weights are random.
CAPTIONER = [
    *("--data.workers=0", "--data.min_count=1", "--data.image_size=64"),
    *("--model.encoder.weights=random", "--model.encoder.backbone=test_efficientnet", "--model.decoder.hidden=32"),
]
QUICK = ["--limit", "2", "--steps", "2", "--seeds", "1"]
SMALL = {
    "caption": ["--max-length", "2"],
    "benchmark": ["--quick", "--rounds", "1"],
    "estimators": ["--methods", "rloo", "--draws", "3", "--scenes", "2", "--warmup", "1"],
    "faithfulness": QUICK,
    "ground": ["--limit", "2"],
    "rank": [*QUICK, "--groups", "2", "--method", "raw"],
    "sequences": ["--steps", "2", "--seeds", "0", "--mechanisms", "soft"],
}
DATA = {"shapes": SMALL_SHAPES, "cifar10": ["--data.download=false", "--data.workers=0", "--data.batch_size=5"]}
DATA |= {"flickr8k": CAPTIONER, "coco": CAPTIONER, "mnist": ["--data.download=false", "--data.workers=0"]}


def small(words):
    """More options, under which a command takes a second."""
    name = words[0]
    if name in TRAINING:
        if "--help" in words or "--data.help" in words:
            return []
        config = next(words[n + 1] for n, word in enumerate(words) if word == "--config").removeprefix("configs/")
        if "captioner-shapes" in words:  # whose vocabulary is that of all its training data
            return [*FAST, *SMALL_SHAPES[1:]]
        alone = ["--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
        return [*FAST, *alone, *DATA[re.split(r"[_/]", config)[0]]]
    if name == "estimators" and "--curves" in words:
        return [*SMALL[name], "--curves", "0.1", "--steps", "3", "--seeds", "0"]
    if "--timm" in words or (name == "overlay" and re.search(r"--model (torchvision|open_clip|timm)", " ".join(words))):
        return ["--weights", "random"] if "--weights" not in words else []
    return SMALL.get(name, [])


PLACES = {"--output", "--root", "--data.root", "--checkpoint", "--ckpt_path"}


def kind(words):
    """A command's name, the names of its options but for those of places and those made small, and libraries."""
    sources = [word.partition(":")[0] for word in words if re.match(r"(hf|timm|torchvision|open_clip):", word)]
    given, replaced = ({word.partition("=")[0] for word in part if word[:2] == "--"} for part in (words, small(words)))
    return (words[0], *([words[1]] if words[0] == "benchmark" else []), *sorted(given - replaced - PLACES), *sources)


def reason(table, words):
    text = " ".join(words)
    return next((why for pattern, why in table.items() if re.fullmatch(pattern, text)), None)


def cases(pages=PAGES):
    """One command of each kind, and commands of other programs of which `ELSEWHERE` says nothing."""
    seen, unknown = {}, []
    for page in pages:
        for words in commands(page):
            given = of_visattn(words)
            if reason(ELSEWHERE, words):
                continue
            if given is None:
                unknown.append(" ".join(words))
                continue
            why = reason(LATER, words)
            marks = [pytest.mark.skipif(not IN_FULL, reason=why)] if why else []
            case = pytest.param(given, id=f"{page.stem}: {' '.join(given)[:70]}", marks=marks)
            seen.setdefault((kind(given), why), case)
    return list(seen.values()), unknown


def picture(path, height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)


def coco(root):
    """Two captioned pictures with outlines."""
    images = [{"id": n, "file_name": f"{n}.png", "height": 53, "width": 61} for n in (3, 5)]
    for entry in images:
        picture(root / "images" / entry["file_name"], 53, 61, entry["id"])
    captions = [{"image_id": n, "id": n, "caption": "a dog and a red circle"} for n in (3, 5)]
    outline = {"category_id": 1, "segmentation": [[0, 0, 53, 0, 53, 50, 0, 50]]}
    things = [{"image_id": n, "id": n, **outline} for n in (3, 5)]
    (root / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    described = {"images": images, "annotations": things, "categories": [{"id": 1, "name": "dog"}]}
    (root / "instances.json").write_text(json.dumps(described))
    return captions


def save_pretrained(folder):
    """A small Vision Transformer of transformers, as its `save_pretrained` writes it."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 12, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 14}
    labels = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    config = transformers.ViTConfig(**sizes, image_size=40, patch_size=8, **labels)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 40, "width": 40}).save_pretrained(folder)


@pytest.fixture(scope="module")
def reader(tmp_path_factory, captioner_checkpoint, classifier_checkpoint):
    """A folder with all that the pages name, and a hub."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch, in_place(folder) as hub:
        patch.chdir(folder)
        patch.setenv("HF_TOKEN", TOKEN)
        model = {path.name: path.read_bytes() for path in (INCLUDED / "captioner_shapes").glob("model.*")}
        vit = {path.name: path.read_bytes() for path in (INCLUDED / "vit_cifar10").glob("model.*")}
        hub.create("ORG/NAME", model, private=True).commit(vit, "v2")

        for name in ("photo.jpg", "cat.jpg", "folder/a.png", "photographs/b.jpg", "data/flickr8k/val/c.png"):
            picture(Path(name), 257, 263, len(name))
        make_scene(np.random.default_rng(0), 2).picture(97).save("scene.png")
        shutil.copytree(ROOT / "docs", "docs")
        write_karpathy(Path("data/flickr8k"))
        write_karpathy(Path("data/coco")).joinpath("dataset_flickr8k.json").rename("data/coco/dataset_coco.json")
        write_cifar(Path("data/cifar10"), patch)
        write_mnist(Path("data/mnist"))
        text = (write_karpathy(Path("data/stair")) / "dataset_flickr8k.json").read_text()
        Path("data/stair/captions.json").write_text(text.replace('"raw": ""', '"raw": "a dog"'))
        Path("results.json").write_text(json.dumps(coco(Path("data/coco"))))
        shutil.copy("data/coco/captions.json", "captions_val2017.json")
        shutil.copy("data/coco/instances.json", "instances_val2017.json")
        shutil.copy("data/coco/captions.json", "data/coco/others.json")
        for split, count in (("train", 331), ("val", 2)):
            for n in range(count):
                write_shard(Path(f"data/cc3m/{split}/{n:05d}.tar"), {f"{split}{n}": files(f"{split}{n}", n)})

        save_pretrained("FOLDER")
        for name in ("facebook/dinov2-small", "runs/my-vit"):
            shutil.copytree("FOLDER", name)
        torch.save(timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict(), "FILE")

        for name in ("shapes_captioner", "demo/captioner", "scheduled", "scst", "seed_0", "seed_1", "seed_2"):
            shutil.copytree(captioner_checkpoint.parent, f"runs/{name}")
        listed = json.loads(Path("data/flickr8k/dataset_flickr8k.json").read_text())["images"]
        captioned = [{"image": f"val/{i['filename']}", "caption": "a dog"} for i in listed if i["split"] == "val"]
        Path("runs/ensemble").mkdir()
        Path("runs/ensemble/captions.json").write_text(json.dumps(captioned))
        shutil.copytree(classifier_checkpoint.parent, "runs/shapes_vit")
        for name in ("flickr8k_soft", "cifar10_vit", "shapes_glimpse", "mnist_glimpse"):
            fit(f"{name}.yaml", Path("runs", name), *small(["fit", "--config", name]))
        fit("shapes_captioner.yaml", Path("runs/five"), *SMALL_SHAPES, "--data.things=5")
        stopping = ["--model.init_args.model.init_args.stop=true"]
        stopping += ["--model.init_args.loss=visattn.training.objectives.GlimpseLoss"]
        stopping += ["--model.init_args.loss.init_args.price=0.005"]
        fit("mnist_glimpse.yaml", Path("runs/stop"), *small(["fit", "--config", "mnist_glimpse"]), *stopping)
        shutil.copytree("runs/flickr8k_soft", "runs/mine")
        main(["test", "--config", "shapes_captioner", "--ckpt_path", "best", *FAST, *SMALL_SHAPES])
        for name in ("scheduled", "scst"):
            shutil.copytree("runs/shapes_captioner", f"runs/{name}", dirs_exist_ok=True)
        shutil.copytree(INCLUDED / "captioner_shapes", "exported/flickr8k")
        main(["overlay", "--checkpoint", "vit-cifar10", "--export", "npz", "--output", "runs/cat", "photo.jpg"])
        yield folder


def expanded(word):
    """As a shell expands it."""
    return sorted(map(str, Path().glob(word))) if "*" in word and not Path(word).is_absolute() else []


@pytest.mark.parametrize("words", cases()[0])
def test_a_documented_command_runs(words, reader, tmp_path):
    words = [found for word in words for found in (expanded(word) or [word])]
    if words[0] == "export":
        shutil.rmtree(words[words.index("--output") + 1], ignore_errors=True)
    if words[0] in ("fit", "sequences") and not {"--ckpt_path", "--help", "--data.help"} & set(words):
        words += ["--output", str(tmp_path)]  # the one that it names has a run
    if "FILE" in words:
        words += ["--image-size", "70", "70"]
    with suppress(SystemExit):  # of --help
        assert main([*words, *small(words)]) in ((0, 1) if words[0] == "check-data" else (0,))  # 1 is: there are faults


def test_what_is_not_run_is_in_the_pages():
    """No reason outlives its command."""
    lines = [" ".join(words) for page in PAGES for words in commands(page)]
    for pattern in (*ELSEWHERE, *LATER):
        assert any(re.fullmatch(pattern, line) for line in lines), pattern


def test_every_command_of_another_program_is_known():
    assert cases()[1] == []


def test_a_new_command_is_noticed(tmp_path):
    page = tmp_path / "new.md"
    page.write_text(
        "Try `uv run visattn caption --new 3 photo.jpg` (not `visattn view`, nor `uv run visattn …`).\n\n"
        "```bash\n# uv run visattn demo\nuv run visattn view --side 7 \\\n    runs/a  # a page\n"
        "cd runs && visattn view --side 11 runs/b\n```\n\n```python\nvisattn = 1\n```\n"
    )
    found, unknown = cases([page])
    assert [case.values[0] for case in found] == [
        ["view", "--side", "7", "runs/a"],
        ["caption", "--new", "3", "photo.jpg"],
    ]
    assert unknown == ["cd runs"]
