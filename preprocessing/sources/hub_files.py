"""Which files a hub dataset is made of: the commit it is pinned to, and where they are, on the hub or on this machine.

`datasets` finds an id only while it reaches the hub: offline it takes whatever it prepared last, of any revision. So offline
the dataset is looked up here: what was prepared, if it is of the commit asked for, else the files in the hub's cache
(HF_HOME/hub/datasets--ORG--NAME/{refs,snapshots}), as `hf download --repo-type dataset` leaves them.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.base.files import file_sha256

SPLIT = "train"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NUMBERED = re.compile(r"(.*-)(\d{5})-of-(\d{5})(\D.*)")
_FORMATS = (("parquet", (".parquet",)), ("json", (".jsonl", ".json", ".jsonl.gz", ".json.gz")))


@dataclass(frozen=True)
class Pinned:
    """A dataset's builder, and the commit that it builds. A local directory has `files` in place of a commit."""

    builder: Any
    config: str
    revision: str = ""
    declared_rows: int = 0
    files: tuple[Path, ...] = ()

    def touched(self) -> int:
        """A number that changes with the name, size or mtime of any file of a local directory; 0 for a commit."""
        lines = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in self.files]
        return int.from_bytes(hashlib.sha256("".join(lines).encode(errors="replace")).digest()[:7]) if lines else 0

    def content_sha256(self) -> str:
        """What pins a local directory: names and contents of its files."""
        lines = [f"{path.name} {file_sha256(path)}\n" for path in self.files]
        return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def pin(id_: str, config: str, revision: str) -> Pinned:
    """Find a dataset (a local directory, or an id of the hub), and the commit that `revision` (default: main) is.

    ValueError, OSError (also those of `datasets`): there is none, it is a script, files are missing.
    """
    import datasets

    if Path(id_).is_dir():
        if revision:
            raise ValueError(f"dataset {id_}: a local directory has no revision {revision!r}; leave the @{revision} out")
        return _pin_directory(Path(id_), config)
    if id_.startswith((".", "/")):
        raise FileNotFoundError(f"dataset {id_}: no such directory")
    if datasets.config.HF_HUB_OFFLINE:
        return _pin_offline(id_, config, revision)
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(id_, revision=revision or None).sha
    builder = datasets.load_dataset_builder(id_, config or None, revision=commit)
    if builder.hash != commit:  # the hub failed in between, and `datasets` fell back on what it had prepared
        raise ValueError(f"dataset {id_}: got commit {builder.hash}, expected {commit}; is the hub reachable? try again")
    return Pinned(builder, builder.config.name, str(commit), _declared_rows(builder))


def _pin_directory(directory: Path, config: str) -> Pinned:
    import datasets

    _refuse_script(directory, directory.name, str(directory))
    builder = datasets.load_dataset_builder(str(directory), config or None)
    files = _train_files(builder)
    _check_complete(files, str(directory))
    return Pinned(builder, builder.config.name, "", _declared_rows(builder), files)


def _pin_offline(id_: str, config: str, revision: str) -> Pinned:
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=id_, repo_type="dataset")
    ref = cached / "refs" / (revision or "main")
    commit = revision if _COMMIT.fullmatch(revision) else ref.read_text().strip() if ref.is_file() else ""
    try:
        builder = datasets.load_dataset_builder(id_, config or None)  # offline: what was prepared last, of any commit
        if builder.hash == commit or not (commit or revision):
            return Pinned(builder, builder.config.name, builder.hash, _declared_rows(builder))
        prepared = f"; prepared is commit {builder.hash}"
    except (OSError, ValueError) as error:  # nothing was prepared, or not this configuration
        prepared = f"; {' '.join(str(error).split())}"
    snapshot = cached / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        raise FileNotFoundError(f"dataset {id_}: no revision {revision or 'main'!r} in {cached}{prepared}")
    _refuse_script(snapshot, Path(id_).name, id_)
    return _pin_snapshot(id_, snapshot, config, commit)


def _pin_snapshot(id_: str, snapshot: Path, config: str, commit: str) -> Pinned:
    """A snapshot often holds one configuration's files, but its card names all of them: `datasets` would miss the others."""
    import datasets

    card = _card(snapshot)
    entry = _of_config(card.get("configs"), config)
    files = sorted(path for pattern in _train_patterns(entry) for path in snapshot.glob(pattern))
    if not files and config in ("", "default"):
        builder = datasets.load_dataset_builder(str(snapshot))
    elif files:
        format_ = next((name for name, suffixes in _FORMATS if files[0].name.endswith(suffixes)), "")
        if not format_:
            raise ValueError(f"dataset {id_}: {files[0].name} can't be read offline; expected parquet or JSON lines")
        builder = datasets.load_dataset_builder(format_, data_files={SPLIT: list(map(str, files))})
    else:
        if not (snapshot / config).is_dir():
            raise FileNotFoundError(f"dataset {id_}: no files of configuration {config!r} in {snapshot}")
        builder = datasets.load_dataset_builder(str(snapshot / config))
    _check_complete(_train_files(builder), str(snapshot))
    info = _of_config(card.get("dataset_info"), config)
    splits = {split.get("name"): split.get("num_examples") for split in info.get("splits") or ()}
    name = config or entry.get("config_name") or "default"
    return Pinned(builder, name, commit, splits.get(SPLIT) or _declared_rows(builder))


def _card(snapshot: Path) -> dict[str, Any]:
    from huggingface_hub import DatasetCard

    readme = snapshot / "README.md"
    return DatasetCard.load(readme).data.to_dict() if readme.is_file() else {}


def _of_config(entries: Any, config: str) -> dict[str, Any]:
    """The entry of a configuration in a part of a dataset's card; of the default one, if none is named."""
    entries = [entries] if isinstance(entries, dict) else entries or []
    wanted = [e for e in entries if (e.get("config_name") == config if config else e.get("default"))]
    return (wanted or (entries if len(entries) == 1 and not config else [{}]))[0]


def _train_patterns(entry: dict[str, Any]) -> list[str]:
    """The file patterns of the split "train": data_files is a pattern, patterns, or [{"split", "path": pattern(s)}, …]."""
    data_files = entry.get("data_files") or []
    patterns: list[str] = []
    for item in [data_files] if isinstance(data_files, str | dict) else data_files:
        if isinstance(item, str):
            patterns.append(item)
        elif item.get("split") == SPLIT:
            patterns += [item["path"]] if isinstance(item["path"], str) else item["path"]
    return patterns


def _train_files(builder: Any) -> tuple[Path, ...]:
    return tuple(map(Path, (builder.config.data_files or {}).get(SPLIT, ())))


def schema_clash(builder: Any) -> str:
    """Which column is of another type in one local file than in another, or only in one of them; "" if none is."""
    import pyarrow as pa

    first: dict[str, tuple[str, str]] = {}  # column -> type, file
    names: list[str] = []
    for path in _train_files(builder):
        try:
            schema = _schema(path)
        except (pa.ArrowException, OSError):
            return ""
        for field in schema:
            type_, file = first.setdefault(field.name, (str(field.type), path.name))
            if type_ != str(field.type):
                return f"column {field.name!r} is {type_} in {file}, {field.type} in {path.name}"
        if names and set(schema.names) != set(names):
            column = min(set(schema.names) ^ set(names))
            return f"column {column!r} is only in {'' if column in schema.names else 'the files before '}{path.name}"
        names = schema.names
    return ""


def _schema(path: Path) -> Any:
    """The columns of a Parquet file; of JSON lines, as their first block shows them."""
    import pyarrow as pa
    import pyarrow.json
    import pyarrow.parquet

    if path.suffix == ".parquet":
        return pa.parquet.read_schema(path)
    with pa.input_stream(path) as stream, pa.json.open_json(stream) as reader:
        return reader.schema


def _declared_rows(builder: Any) -> int:
    splits = builder.info.splits or {}
    return (splits[SPLIT].num_examples or 0) if SPLIT in splits else 0


def _refuse_script(directory: Path, name: str, what: str) -> None:
    if (directory / f"{name}.py").exists():
        raise ValueError(
            f"dataset {what}: is a Python script ({name}.py), and no dataset's code is run; expected data files (parquet, JSON "
            f"lines); many scripts have a converted copy: @refs/convert/parquet"
        )


def _check_complete(files: Sequence[Path], what: str) -> None:
    """ValueError: of files called …-00003-of-00041… not all are here (an interrupted download)."""
    for path in files:
        if numbered := _NUMBERED.fullmatch(path.name):
            start, _, count, end = numbered.groups()
            names = {other.name for other in files if other.parent == path.parent}
            missing = [n for i in range(int(count)) if (n := f"{start}{i:05}-of-{count}{end}") not in names]
            if missing:
                raise ValueError(
                    f"dataset {what}: {len(missing)} of {count} files are missing ({missing[0]} …); download it again"
                )
