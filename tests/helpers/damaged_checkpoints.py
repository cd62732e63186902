"""Ways to damage the newest checkpoint of a run of two ranks and four steps, and the words that name each."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.checkpoint.layout import MANIFEST, read_manifest, write_manifest


def flip_a_bit(path: Path, seed: int = 0) -> None:
    data = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(len(data))
    data[place] ^= 1 << seed % 8
    path.write_bytes(data)


def newest_shard(run: Path, rank: int = 1) -> Path:
    return run / "checkpoints" / "step-00000004" / f"rank-{rank:05d}-of-00002.safetensors"


def reseal(directory: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    """Change a manifest as somebody would who knows about the seal."""
    values = read_manifest(directory)
    change(values)
    write_manifest(directory, values)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda run: newest_shard(run).write_bytes(newest_shard(run).read_bytes()[:-1]), "expected"),
    "zero bytes": (lambda run: newest_shard(run).write_bytes(b""), "0 bytes"),
    "zeros of the right size": (
        lambda run: newest_shard(run).write_bytes(bytes(newest_shard(run).stat().st_size)),
        "sha256 is not the manifest's",
    ),
    "missing": (lambda run: newest_shard(run).unlink(), "no such file"),
    "another step's": (
        lambda run: shutil.copy(run / "checkpoints/step-00000002" / newest_shard(run).name, newest_shard(run)),
        "sha256 is not the manifest's",
    ),
    "another rank's": (lambda run: shutil.copy(newest_shard(run, 0), newest_shard(run)), "rank-00001-of-00002"),
    "of another world size": (
        lambda run: shutil.copy(newest_shard(run), newest_shard(run).with_name("rank-00000-of-00003.safetensors")),
        "not a file of this checkpoint",
    ),
    "probe missing": (lambda run: (newest_shard(run).parent / "probe.safetensors").unlink(), "no such file"),
    "manifest missing": (lambda run: (newest_shard(run).parent / MANIFEST).unlink(), "not a finished checkpoint"),
    "manifest empty": (lambda run: (newest_shard(run).parent / MANIFEST).write_bytes(b""), "not valid JSON"),
    "manifest edited": (
        lambda run: (newest_shard(run).parent / MANIFEST).write_text(
            (newest_shard(run).parent / MANIFEST).read_text().replace('"updates": 4', '"updates": 5')
        ),
        "does not agree with its contents",
    ),
    "of another format": (
        lambda run: (newest_shard(run).parent / MANIFEST).write_text('{"format": "sibert-checkpoint-1"}'),
        "another version of this program",
    ),
    "an empty directory": (
        lambda run: [path.unlink() for path in newest_shard(run).parent.iterdir()],
        "not a finished checkpoint",
    ),
}
