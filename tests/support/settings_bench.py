"""One small night on which any setting can be changed and its effect be seen.

The stages run in this process, each on what the stages before it made of a file
of rows. What is *observed* of a run is what it did, not what it wrote down of
its settings: a limit that is merely copied into a report is no effect.
"""

import contextlib
import csv
import inspect
import itertools
import sqlite3
from collections import Counter
from datetime import UTC, datetime

import onnxruntime
import torch
import yaml
from settings import before_and_after
from torch.nn.modules.module import register_module_forward_hook

from stillhouse.data.files import sha256_file, sha256_tree, write_none
from stillhouse.data.sources import fingerprint
from stillhouse.errors import StillhouseError
from stillhouse.models.checkpoint import digest, load
from stillhouse.params.base import build
from stillhouse.params.source import SourceSpec
from stillhouse.runner.stage import load_stage

#: Stage → the baseline's settings. A fingerprint of null is taken from the source, as the flow does.
BASE = yaml.safe_load("""
ingest:
  as_of: "2024-01-13T00:00:00+00:00"
  fingerprint: null
  source:
    kind: file
    shop: {size: tiny}
    path: rows.csv
    url: sqlite:///rows.db
    query: SELECT * FROM rows
    columns: {rating: rating, event: event}
    item_columns: {}
validate:
  {min_rows: 1, min_users: 1, min_items: 1, earliest: "2000-01-01", rating_min: 0.0, rating_max: 5.0, id_length: 256,
   volume_min: 0.8, volume_max: 2.0, event_weights: &weights {view: 0.5, purchase: 1.0},
   as_of: "2024-01-13T00:00:00+00:00"}
admit: {max_quarantined: 0.5}
prepare:
  {min_user_events: 1, min_item_events: 1, min_rating: null, window_days: 2, repeat_items: false,
   event_weights: *weights, as_of: "2024-01-13T00:00:00+00:00"}
train_teacher:
  model: &transformer {kind: transformer, width: 8, blocks: 1, heads: 2, length: 6, dropout: 0.1}
  training: &training
    {epochs: 2, warm_epochs: 1, batch_size: 16, learning_rate: 0.01, warmup_steps: 2, weight_decay: 0.0, clip_norm: 1.0,
     patience: 5, valid_users: 2000}
  <<: &shared {seed: 1, repeat_items: false, compute: &compute {device: cpu, precision: 32-true, threads: 1}}
check_teacher: {min_over_popularity: 0.0, max_drop: 1.0, min_coverage: 0.0, repeat_items: false, compute: *compute}
export_soft_targets:
  {k: 6, score_bits: 4, tail_samples: 4, tail_bits: 5, temperatures: [1.0, 2.0], shard_positions: 40, batch_size: 4,
   <<: *shared}
train_student:
  training: *training
  distillation: {alpha: 0.3, temperature: 2.0}
  student:
    model: &gru {kind: gru, width: 8, blocks: 1, length: 6, dropout: 0.1}
    training: null
    distillation: null
  <<: *shared
package: {parity: 0.0001, parity_histories: 20, repeat_items: false}
evaluate: &evaluate
  {ks: [1, 10], batch_size: 8, threads: 1, latency_threads: 1, latency_requests: 10, short_history: 4, head_share: 0.5,
   repeat_items: false}
evaluate_champion: *evaluate
""")
TRAINING, DISTILLATION = (BASE["train_student"][name] for name in ("training", "distillation"))
MODELS = {
    "transformer": BASE["train_teacher"]["model"],
    "gru": BASE["train_student"]["student"]["model"],
    **yaml.safe_load("""
bidirectional:
  {kind: bidirectional, width: 8, blocks: 1, heads: 2, length: 6, dropout: 0.1, mask_share: 0.3, last_share: 0.5}
item_knn: &item_knn {kind: item_knn, length: 6, folds: 2, neighbours: 5, decay: 0.8, shrink: 1.0}
ease: {kind: ease, length: 6, folds: 2, neighbours: 5, decay: 0.8, l2: 10.0}
popularity: &popularity {kind: popularity, length: 6, folds: 2}
ensemble: {kind: ensemble, combine: mean, members: {knn: {model: *item_knn}, popular: {model: *popularity}}}
cross_fitted:
  {kind: cross_fitted, folds: 2, model: {kind: gru, width: 8, blocks: 1, length: 6, dropout: 0.1}}
"""),
}

#: Argument of a stage → the run and the output that it is the baseline's.
INPUTS = {
    "snapshot": ("ingest", "snapshot"),
    "accepted": ("validate", "accepted"),
    "verdict": ("validate", "verdict"),
    "admitted": ("admit", "admitted"),
    "vocabulary": ("prepare", "vocabulary"),
    "sequences": ("prepare", "sequences"),
    "teacher": ("train_teacher", "teacher"),
    "checked": ("check_teacher", "checked"),
    "soft_targets": ("export_soft_targets", "soft_targets"),
    "student": ("train_student", "student"),
    "package": ("package", "package"),
    "champion": ("package", "package"),
    "reference": ("package", "package"),
}
#: Runs that a case may ask for beside the baselines: name → stage, changed settings, output and, where it takes
#: another run's, inputs.
RUNS = {
    "last night's profile": ("validate", {}, "profile"),
    "last night's teacher": ("train_teacher", {}, "teacher"),
    "last night's student": ("train_student", {}, "student"),
    "last night's soft targets": ("export_soft_targets", {}, "soft_targets"),
    "a poor teacher": ("train_teacher", {"training": {**TRAINING, "epochs": 1, "learning_rate": 1e-9}}, "teacher"),
    "a warm teacher": ("train_teacher", {}, "teacher", {"previous_teacher": "last night's teacher"}),
}
OUTPUTS = {
    "ingest": ["snapshot"],
    "validate": ["accepted", "quarantine", "profile", "verdict", "data_docs"],
    "admit": ["admitted"],
    "prepare": ["vocabulary", "sequences"],
    "train_teacher": ["teacher"],
    "check_teacher": ["checked", "timings"],
    "export_soft_targets": ["soft_targets"],
    "train_student": ["student"],
    "package": ["package"],
    "evaluate": ["evaluation", "timings"],
    "evaluate_champion": ["evaluation", "reference_evaluation", "timings"],
}
#: Stages in which a model scores and that leave nothing by which to tell how.
_SCORING = ("check_teacher", "export_soft_targets")
#: Figures that repeat a setting.
_ECHOES = ("window_start", "window_end", "window_reason", "top_k_probability")


class Bench:
    """Runs stages with changed settings and remembers what was observed of each run."""

    def __init__(self, root):
        self.root, self._runs, self._numbers, self._sessions = root, {}, itertools.count(), []
        write_none(root / "none")
        write_source(root)

    def compare(self, stage, setting, case):
        """Return what is observed of the baseline that ``case`` needs, and of the same with ``setting`` changed."""
        before, after = before_and_after(BASE[stage], setting, case, MODELS)
        assert _params(stage, before) != _params(stage, after), "the case must set another value"
        return self.run(stage, before, case.inputs)[0], self.run(stage, after, case.inputs, case.refused)[0]

    def run(self, stage, values=None, inputs=None, refused=None, again=False):
        """Return what is observed of one run, and its folder.

        Where the stage raises ``refused``, its error is what is observed; any other error goes through.
        ``again`` runs once more what has been run before.
        """
        values, inputs = BASE[stage] if values is None else values, inputs or {}
        key = repr((stage, values, inputs, again))
        if key not in self._runs:
            self._runs[key] = self._run(stage, values, inputs, refused)
        return self._runs[key]

    def _run(self, stage, values, inputs, refused):
        function, _ = load_stage(stage)
        paths = self._paths(stage, function, inputs)
        reporter = Watcher()
        self._sessions.clear()
        torch.set_num_threads(1)  # whatever ran before
        try:
            with reporter.inside_models() if stage in _SCORING else contextlib.nullcontext():
                figures = function(**paths, params=_params(stage, values), reporter=reporter)
        except StillhouseError as error:
            if refused is None or not isinstance(error, refused):
                raise
            return {"refused": str(error)}, None
        assert refused is None, f"{stage} must refuse this value"
        out = {name: paths[name] for name in OUTPUTS[stage]}
        observed = {
            "figures": {name: value for name, value in figures.items() if name not in _ECHOES},
            **OBSERVED[stage](out),
            "threads": sorted(reporter.threads),
            "batches": sorted(reporter.sizes),
            "types": sorted(reporter.types),
            "sessions": [(threads, Counter(shapes)) for threads, shapes in self._sessions],
        }
        # As text, in which a NaN is equal to itself.
        return {name: repr(value) for name, value in observed.items()}, out

    def _paths(self, stage, function, inputs):
        paths = {}
        folder = self.root / f"{next(self._numbers)}-{stage}"
        for name in set(inspect.signature(function).parameters) - {"params", "reporter"}:
            if name in OUTPUTS[stage] or name == "resume":
                paths[name] = folder / name
            elif name in inputs:
                made_by, values, output, *more = RUNS[inputs[name]]
                paths[name] = self.run(made_by, {**BASE[made_by], **values}, *more)[1][output]
            elif name.startswith("previous_"):
                paths[name] = self.root / "none"
            else:
                made_by, output = INPUTS[name]
                paths[name] = self.run(made_by)[1][output]
        (folder / "resume").mkdir(parents=True)
        return paths

    def session(self, path, options, **rest):
        """Stand in for ONNX Runtime's session: the same, and what it is made and asked with is remembered."""
        shapes = []
        self._sessions.append((options.intra_op_num_threads, shapes))
        return _Session(_REAL_SESSION(path, options, **rest), shapes)


class _Session:
    def __init__(self, real, shapes):
        self._real, self._shapes = real, shapes

    def __getattr__(self, name):
        return getattr(self._real, name)

    def run(self, names, feeds):
        self._shapes.append(feeds["histories"].shape)
        return self._real.run(names, feeds)


_REAL_SESSION = onnxruntime.InferenceSession


class Watcher:
    """A reporter that looks at what the stage works with whenever it is told something."""

    def __init__(self):
        self.threads, self.sizes, self.types = set(), set(), set()

    def metrics(self, values, step):
        self.threads.add(torch.get_num_threads())

    def note(self, text):
        self.threads.add(torch.get_num_threads())

    def advance(self, steps=1):
        self.threads.add(torch.get_num_threads())

    @contextlib.contextmanager
    def progress(self, description, total):
        yield self

    @contextlib.contextmanager
    def inside_models(self):
        """Remember how many histories a model is given at once and what type it computes in, inside the block."""

        def look(module, given, result):
            if isinstance(module, torch.nn.Embedding):
                self.sizes.add(len(given[0]))
            if isinstance(module, torch.nn.Linear):
                self.types.add(str(result.dtype))

        handle = register_module_forward_hook(look)
        try:
            yield
        finally:
            handle.remove()


def _params(stage, values):
    _, model = load_stage(stage)
    if stage == "ingest" and values["fingerprint"] is None:
        source = build(SourceSpec, values["source"], "source")
        values = {**values, "fingerprint": fingerprint(source, datetime.fromisoformat(values["as_of"]))}
    return build(model, values, stage)


def _arrays(folder):
    """Digests of what ``prepare`` writes for others to compute with; its headers repeat settings."""
    return {file.name: sha256_file(file) for file in folder.iterdir() if file.suffix != ".json"}


def _shards(store):
    return [sha256_file(file) for file in sorted(store.glob("shard-*"))]


#: Stage → what is observed beside its figures and how it worked, from its outputs.
OBSERVED = {
    "ingest": lambda out: {"snapshot": sha256_tree(out["snapshot"])},
    "validate": lambda out: {"accepted": sha256_tree(out["accepted"])},
    "admit": lambda out: {},
    "prepare": lambda out: {**_arrays(out["vocabulary"]), **_arrays(out["sequences"])},
    # How far back a teacher looks decides which positions it labels, whether or not a weight depends on it.
    "train_teacher": lambda out: {"weights": digest(out["teacher"]), "looks back": load(out["teacher"])[0].length},
    "check_teacher": lambda out: {},
    "export_soft_targets": lambda out: {
        "shards": [sha256_file(file) for file in sorted(out["soft_targets"].glob("shard-*"))]
    },
    "train_student": lambda out: {"weights": sha256_file(out["student"] / "model.safetensors")},
    "package": lambda out: {"graph": sha256_file(out["package"] / "model.onnx")},
    "evaluate": lambda out: {"evaluation": sha256_tree(out["evaluation"])},
    "evaluate_champion": lambda out: {"evaluation": sha256_tree(out["evaluation"])},
}


def write_source(root):
    """Write ``rows.csv`` and ``items.csv``, fewer rows beside them, and a database of either."""
    rows, goods = list(_rows()), [_good(number) for number in range(1, 43)]
    for name, table in {"rows": rows, "fewer": rows[:200], "items": goods}.items():
        with (root / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    for name, taken in {"rows": rows, "fewer": rows[:200]}.items():
        with contextlib.closing(sqlite3.connect(root / f"{name}.db")) as database:
            for table, content in {"rows": taken, "items": goods}.items():
                columns = list(content[0])
                database.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
                marks = ", ".join(f":{column}" for column in columns)
                database.executemany(f"INSERT INTO {table} VALUES ({marks})", content)
            database.commit()


def _good(number):
    return {
        "item_id": f"i{number}",
        "sku": f"i{number + 1}",
        "title": f"Item {number}",
        "name": f"Good {number}",
        "blurb": f"No. {number}",
        "shelf": f"a{number % 3};b",
    }


def _rows():
    """Give the rows of 42 users who walk a ring of 42 items, more of them from its beginning, and one bad row."""
    start = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    for user in range(42):
        for step in range(5 + user % 5):
            item = (user * user // 7 + step - (step == 4 and user % 3 == 0)) % 42 + 1
            yield _row(user, item, start + (2 + step + user % 3) * 86_400 + user, step)
    yield _row(1, 1, start + 300 * 86_400, 9)


def _row(user, item, time, place):
    return {
        "user_id": f"u{user}",
        "item_id": f"i{item}",
        "timestamp": time,
        "rating": 1 + (user + item) % 5,
        "event": "purchase" if item % 3 == 0 else "view",
        "buyer": f"u{user + 1}",
        "good": f"i{item + 1}",
        "sent": time + 60,
        "place": place,
        "order_no": place + 1,
        "stars": 5 - (user + item) % 5,
        "action": "view",
    }
