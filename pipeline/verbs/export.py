"""`python -m pipeline export`."""

import argparse
from pathlib import Path

TEXT = """\
The newest checkpoint of a run, pretrained or fine-tuned, as a folder for Hugging Face's transformers: weights, configuration,
code, tokenizer and card. docs/export.md shows how it is used. A folder that is there is never touched.
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Which run, and where to."""
    verb.add_argument("--run", dest="run_dir", required=True, type=Path, metavar="DIR", help="a run with a checkpoint")
    verb.add_argument("--out", required=True, type=Path, metavar="HF_DIR", help="where to: a new folder")
    verb.add_argument("--data", type=Path, metavar="DIR", help="where the run's corpus is now (default: where it was)")


def run(args: argparse.Namespace) -> None:
    """Write the folder and say what is in it."""
    from pipeline.export.configuration import architecture
    from pipeline.export.export import export
    from pipeline.model.pretraining import parameter_count

    trained = export(args.run_dir, args.out, args.data)
    remote = "" if architecture(trained.config).startswith("Bert") else ", trust_remote_code=True"
    print(
        f"{args.out}: {architecture(trained.config)}, {parameter_count(trained.model):,} parameters of step "
        f"{trained.record['step']:,}; transformers.AutoModel.from_pretrained({str(args.out)!r}{remote}) loads it"
    )
