"""`python -m pipeline finetune`."""

import argparse
import os
from pathlib import Path

from pipeline.distributed.launch import world_from
from pipeline.distributed.stop_signals import outcome_in
from pipeline.tasks.examples import TASKS

TEXT = """\
Fine-tune a pretrained run on MNLI, SQuAD 1.1 or SQuAD 2.0, once for each seed, and evaluate it as officially. Runs as one
process, or as one rank of several under torchrun, deepspeed or srun, as pretrain does:

  python -m pipeline finetune --task squad2 --run runs/small --data squad/ --seeds 3 --out tuned/small

--data is a folder with the official files, train and dev in their names (.json, .jsonl, .tsv; also .gz); without it the data
come from the Hugging Face hub. The recipe is the task's own: LAMB for SIBERT (finetune/squad2), AdamW for BERT
(finetune/squad2-bert); finetune/squad2-sgd is all SGD with relative clipping.

OUT/TASK/seed-N then holds predictions, n-best answers and results.json. The same command goes on where it was stopped; a seed
that has its results is not trained again. Next: python -m pipeline scorecard --run OUT
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """The task, the run, the data, and where results go."""
    verb.add_argument("--task", required=True, choices=TASKS)
    verb.add_argument(
        "--run", "--run-dir", dest="run_dir", required=True, type=Path, metavar="DIR", help="a pretraining run, or its export"
    )
    verb.add_argument("--out", required=True, type=Path, metavar="DIR", help="where OUT/TASK/seed-N are made")
    verb.add_argument("--data", type=Path, metavar="DIR", help="a folder with the task's official files (default: the hub)")
    verb.add_argument(
        "--corpus",
        type=Path,
        metavar="DIR",
        help="where the run's corpus is now (default: where it was); for an export: a corpus of its tokenizer",
    )
    verb.add_argument("--recipe", metavar="NAME", help="finetune/TASK, -bert or -sgd; or the path of a .toml file")
    verb.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change one value; repeatable"
    )
    verb.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1 (default: 1)")
    verb.add_argument("--from-scratch", action="store_true", help="from new weights of the run's shape, to compare with")
    verb.add_argument("--outcome", type=Path, metavar="FILE", help="write there how it ended, for a batch system")


def run(args: argparse.Namespace) -> int:
    """Fine-tune; returns the exit code."""
    from pipeline.config.load import from_dict
    from pipeline.distributed.stop_signals import EXIT_CODE
    from pipeline.finetune.settings import finetune_config, recipe_for
    from pipeline.finetune.start import Request, finetune
    from pipeline.run.trained import read_record

    if args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds}: expected at least 1")
    pretrained = from_dict(read_record(args.run_dir)["config"], where=f"{args.run_dir}/config.json")
    recipe = args.recipe or recipe_for(args.task, pretrained)
    config = finetune_config(args.task, recipe, pretrained, args.overrides)
    request = Request(args.task, config, recipe, args.run_dir, args.out, args.data, args.corpus, args.seeds, args.from_scratch)
    world = world_from(os.environ)
    with outcome_in(args.outcome if world.is_main else None) as outcome:
        finished = finetune(request, world)
        outcome["outcome"] = "finished" if finished else "stopped"
    return 0 if finished else EXIT_CODE
