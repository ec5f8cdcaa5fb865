"""Settings of the kernels that run the chapters; a hook of mkdocs (`.mkdocs.yml`)."""

import os

# tqdm asks for a library of widgets, which pages do not have, in red letters.
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
