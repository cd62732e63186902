"""What a corpus of very many shards costs a rank before its first batch: the arithmetic of docs/scale.md.

    python -m benchmarks.many_shards [--shards 1000 10000]

Makes a corpus of so many (small, hard linked) train shards and opens it as a rank does, in a process of its own.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from preprocessing.build.build import build
from preprocessing.build.settings import Settings
from preprocessing.corpus.manifest import read_manifest, write_manifest
from preprocessing.sources.parse import parse_sources

OPEN = """
import json, sys, time
import numpy as np
from pipeline.data.pretraining import PretrainingData
from preprocessing.corpus.reader import open_corpus
def own_kb():  # without the files' pages, which are the page cache's
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1])
before, began = own_kb(), time.perf_counter()
corpus = open_corpus(sys.argv[1], verify="sizes")
manifest = time.perf_counter()
data = PretrainingData(corpus, "train", "mlm", 128, 0.15, 0)
index = time.perf_counter()
data.batch(np.arange(256))
first = time.perf_counter()
data.batch(data.n_samples - 256 + np.arange(256))
last = time.perf_counter()
print(json.dumps([manifest - began, index - manifest, first - index, last - first, own_kb() - before]))
"""


def multiply(built: Path, out: Path, shards: int) -> None:
    """The built corpus with its train shards linked again and again under new names."""
    out.mkdir()
    manifest = read_manifest(built)
    train = [shard for shard in manifest.shards if shard.split == "train"]
    many = [dataclasses.replace(train[i % len(train)], file=f"train-{i:05d}.arrow") for i in range(shards)]
    for new, old in zip(many, (train[i % len(train)] for i in range(shards)), strict=True):
        os.link(built / old.file, out / new.file)
    for path in built.iterdir():
        if not path.name.startswith("train-"):
            os.link(path, out / path.name)
    (out / "manifest.json").unlink()
    heldout = [shard for shard in manifest.shards if shard.split == "heldout"]
    write_manifest(out, dataclasses.replace(manifest, shards=(*many, *heldout)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[1000, 10_000], help="(default: 1000 10000)")
    args = parser.parse_args()
    print("| shards | manifest | made in | open and check sizes | index | first batch | last batch | memory |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "built"
        build(parse_sources(["builtin"]), built, Settings(vocab_size=2048, heldout_fraction=0.1), say=lambda line: None)
        for shards in args.shards:
            out = Path(folder) / f"of-{shards}"
            began_s = time.perf_counter()
            multiply(built, out, shards)
            made_s = time.perf_counter() - began_s
            done = subprocess.run([sys.executable, "-c", OPEN, str(out)], capture_output=True, text=True, check=True)
            *seconds, own_kb = json.loads(done.stdout)
            cells = " | ".join(f"{s:.3f} s" for s in seconds)
            megabytes = (out / "manifest.json").stat().st_size / 1e6
            print(f"| {shards:,} | {megabytes:.2f} MB | {made_s:.1f} s | {cells} | {own_kb / 1024:.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
