"""What reading training batches costs, masking included, in one process, beside the usual loader; and what a seek costs.

    python -m benchmarks.loader corpora/wiki-books

The usual loader is a torch DataLoader (no workers) over a datasets.Dataset of ready-made blocks of the same corpus, with
transformers' DataCollatorForLanguageModeling. In turn, medians. Needs benchmarks/requirements.txt.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import medians_s
from pipeline.data.pretraining import PretrainingData
from preprocessing.corpus.reader import CLS_ID, MASK_ID, PAD_ID, SEP_ID, SPECIAL_PIECES, Corpus, open_corpus

BATCH_TOKENS = 32_768  # a batch: 256 sequences of 128, 64 of 512
BATCHES = 20


def usual_loader(corpus: Corpus, seq_len: int, batch: int, folder: Path) -> Iterator[Any]:
    """Batches without end, from blocks that were made beforehand."""
    import datasets
    from tokenizers import BertWordPieceTokenizer
    from torch.utils.data import DataLoader
    from transformers import BertTokenizerFast, DataCollatorForLanguageModeling

    stream = np.concatenate([shard.tokens[:4_000_000] for shard in corpus.shards("train")])[:8_000_000].astype(np.int64)
    inner = seq_len - 2
    n = len(stream) // inner
    blocks = np.full((n, seq_len), SEP_ID)
    blocks[:, 0], blocks[:, 1:-1] = CLS_ID, stream[: n * inner].reshape(n, inner)
    # A tokenizer with the corpus' specials and size: the collator asks it for these alone.
    vocabulary = {**{piece: i for i, piece in enumerate(SPECIAL_PIECES)}, **{f"t{i}": i for i in range(5, corpus.vocab_size)}}
    tokenizer = BertTokenizerFast(tokenizer_object=BertWordPieceTokenizer(vocabulary)._tokenizer)
    assert (tokenizer.mask_token_id, tokenizer.pad_token_id, len(tokenizer)) == (MASK_ID, PAD_ID, corpus.vocab_size)
    data = datasets.Dataset.from_dict({"input_ids": list(blocks)})
    data.save_to_disk(folder / f"blocks-{seq_len}")
    data = datasets.load_from_disk(folder / f"blocks-{seq_len}")
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    loader = DataLoader(data, batch_size=batch, shuffle=True, collate_fn=collator, num_workers=0)  # type: ignore[arg-type]
    return itertools.chain.from_iterable(itertools.repeat(loader))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rounds", type=int, default=9, help="(default: %(default)s)")
    args = parser.parse_args()
    import datasets

    datasets.disable_progress_bars()
    corpus = open_corpus(args.corpus, verify="sizes")
    print(
        "| sequence length | loader | usual loader | ratio | seek to sample 0 | seek to the last |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for seq_len in (128, 512):
            data, batch = PretrainingData(corpus, "train", "mlm", seq_len, 0.15, seed=0), BATCH_TOKENS // seq_len
            usual, counters = usual_loader(corpus, seq_len, batch, Path(folder)), itertools.count()
            last = np.array([data.n_samples - 1])
            seconds = medians_s(
                {
                    "ours": lambda data=data, counters=counters, batch=batch: [
                        data.batch(np.arange(batch) + batch * next(counters)) for _ in range(BATCHES)
                    ],
                    "usual": lambda usual=usual: [next(usual) for _ in range(BATCHES)],
                    "first": lambda data=data: [data.batch(np.array([0])) for _ in range(BATCHES)],
                    "last": lambda data=data, last=last: [data.batch(last) for _ in range(BATCHES)],
                },
                args.rounds,
            )
            rate = {name: BATCHES * BATCH_TOKENS / s / 1e6 for name, s in seconds.items()}
            seeks = " | ".join(f"{seconds[name] / BATCHES * 1e6:.0f} µs" for name in ("first", "last"))
            ratio = seconds["usual"] / seconds["ours"]
            print(f"| {seq_len} | {rate['ours']:.1f} M tokens/s | {rate['usual']:.2f} M tokens/s | {ratio:.1f} | {seeks} |")


if __name__ == "__main__":
    main()
