"""The example jobs for several machines: their syntax, and that their options are those of the program."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import CONFIGS

from visattn.data.tars import webdataset

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def script(name: str) -> str:
    """The shell code of an example."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    if name == "slurm.sh":
        return text
    documents = list(yaml.safe_load_all(text))
    if name == "skypilot.yaml":
        return documents[0]["setup"] + documents[0]["run"]
    (container,) = documents[1]["spec"]["template"]["spec"]["containers"]
    return container["args"][0]


def words_of(name: str) -> list[str]:
    """What `visattn fit` is given."""
    (line,) = (line for line in script(name).replace("\\\n", " ").splitlines() if "visattn fit" in line)
    words = shlex.split(line.partition("visattn fit")[2].partition("||")[0])
    return [re.sub(r"\$\{?\w+\}?", "2", word) for word in words]


NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".sh", ".yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid_shell(name):
    done = subprocess.run(["bash", "-n"], input=script(name), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_example_trains_on_all_processes_and_continues(name):
    words = words_of(name)
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert all(option.startswith("--") for option in options)
    assert (CONFIGS / f"{options['--config']}.yaml").exists()
    assert options["--resume"] == "auto"
    assert options["--trainer.strategy"] == "ddp"
    assert {"--trainer.num_nodes", "--trainer.devices", "--output"} <= options.keys()


def test_slurms_numbers_agree():
    text = (EXAMPLES / "slurm.sh").read_text(encoding="utf-8")
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, flags=re.M))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"] == re.search(r"--trainer.devices (\d)", text)[1]
    assert asked["signal"] == "USR1@120"


def test_kubernetes_numbers_agree():
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8"))
    spec, text = job["spec"], script("kubernetes.yaml")
    assert spec["completions"] == spec["parallelism"] == int(re.search(r"--nnodes (\d)", text)[1])
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(re.search(r"--nproc-per-node (\d)", text)[1])
    assert f"{job['metadata']['name']}-0.{service['metadata']['name']}" in text
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


def test_skypilots_shards_are_webdatasets_pipes():
    pytest.importorskip("webdataset")
    words = words_of("skypilot.yaml")
    urls = webdataset().shardlists.expand_urls(words[words.index("--data.train") + 1])
    assert len(urls) == 1242
    assert urls[1] == "pipe:aws s3 cp s3://my-bucket/train/00001.tar -"
