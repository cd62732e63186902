"""What `--help` says of each verb of `python -m preprocessing`."""

SOURCES = """\
A source is one of
  PATH or LABEL=PATH   files, PATH may be a quoted glob: *.jsonl, *.ndjson, *.json and *.parquet (a `text` column; `id` and
                       `title` are kept), *.txt (a document a file), *.xml (a MediaWiki dump), wiki_00 (of WikiExtractor);
                       .gz, .bz2, .xz and .zst of all but Parquet
  PATH#COLUMN          the same of files whose text is in another column than `text`
  sentences:PATH       a sentence a line, an empty line between documents, as BookCorpus and BERT's own input are
  wikipedia[:CONFIG]   wikimedia/wikipedia on the Hugging Face hub (CONFIG: 20231101.en)
  books[:ID]           a set of books on the hub
  hf:ID[:CONFIG][@REVISION][#COLUMN]   any other set, or a local folder of one; LABEL=hf:… names it
  builtin              Python's own reference and docstrings: real text that is on every machine"""

DESCRIPTIONS = {
    "build": f"""\
Build a corpus: plan, tokenizer, shards, finalize. OUT appears only when it is whole; until then the work is in OUT.work, and
the same command, stopped or killed at any moment, goes on from there. If OUT is there already, built from the same sources
with the same settings, nothing is done; if it is anything else, nothing is touched and the error says what differs.

{SOURCES}
""",
    "tokenizer": f"""\
First step of a build in steps: hash the sources' files, cut them into slices, decide what is held out, train the tokenizer.
All of it goes to OUT.work, which the tasks of `shard` and `finalize` read.

{SOURCES}
""",
    "shard": """\
Second step: make the shards of a share of the slices. Tasks may run at once, on any machine that sees OUT.work and the sources,
in any number; a task that is run again does only what is missing, and two runs of one task do no harm.
""",
    "finalize": """\
Last step: drop duplicates over all slices, check that nothing is missing, and put the corpus at OUT.
""",
    "audit": """\
Prove a corpus: every file's hash, all counts anew from the shards, special tokens, unknown rate, duplicates, held-out text in
train, statistics of the masking over a million positions, and documents beside what they decode to. Prints a table, writes a
page, exits 1 if a check fails.
""",
    "inspect": """\
Check every file of a corpus against its manifest (sizes and sha256) and print what it holds: sources, documents,
sentences, words, tokens, what was dropped and why, the unigram entropy of the held-out text.
""",
}
EXAMPLES = {
    "build": """\
examples:
  python -m preprocessing build --source builtin --vocab-size 4096 --out demo/corpus
  python -m preprocessing build --source 'wiki=data/wiki-*.jsonl.gz' --source books=data/books.jsonl.gz \\
      --vocab-size 30522 --expect wiki:documents=15000 --out corpus
""",
    "tokenizer": """\
example, as four jobs (the middle one may be a job array, on any number of machines):
  python -m preprocessing tokenizer --source wikipedia --source books --vocab-size 30522 --out corpus
  python -m preprocessing shard --task 3/64 --out corpus
  python -m preprocessing finalize --out corpus
  python -m preprocessing audit corpus
""",
    "shard": """\
example:
  python -m preprocessing shard --task $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT --out corpus
""",
    "finalize": """\
example:
  python -m preprocessing finalize --out corpus
""",
    "audit": """\
example:
  python -m preprocessing audit corpus --html corpus.html
""",
    "inspect": """\
example:
  python -m preprocessing inspect corpus --sequences 3 --seq-len 64
""",
}
