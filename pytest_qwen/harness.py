"""Tasks of lm-evaluation-harness: found, their questions chosen, put to an engine, graded by the harness."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_qwen.data import fixtures_dir
from pytest_qwen.engines.base import Engine
from pytest_qwen.errors import Misuse, QwenError, Unavailable, closest, explain
from pytest_qwen.harness_quiet import local_data, no_code, quietly

# Short names, each with the harness's task and the folder below its tasks that has it: reading all of its
# thousands of files takes seconds.
_NAMES = {
    "mmlu": ("mmlu", "mmlu/default"),
    "gsm8k": ("gsm8k", "gsm8k"),
    "ceval": ("ceval-valid", "ceval"),
    "humaneval": ("humaneval", "humaneval"),
    "mbpp": ("mbpp", "mbpp"),
}
# Our own, small and always there.
OWN = ("small-choice", "small-exact", "small-code")
# What counts as right where a task has several figures, first found first.
_METRICS = ("acc", "exact_match", "pass@1")
_SHOWN = 200
# Formats that a task can name in the place of a data set.
_FORMATS = frozenset({"json", "csv", "parquet", "arrow", "text", "xml"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to evaluate: a task, how many of its questions (all for None), and how they are put.

    `folder` is what a path counts from. `shots` is the number of examples before each question, the task's
    own for None. `metric` is a figure of the task, or figure and filter: "exact_match,flexible-extract".
    """

    task: str
    limit: int | None = None
    shots: int | None = None
    metric: str | None = None
    seed: int = 0
    folder: Path = field(default_factory=Path)

    def facts(self) -> dict[str, Any]:
        """What decides questions and grading, as plain data."""
        names = ("task", "limit", "shots", "metric", "seed")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answered question. `right` is None where `program`, which has its tests in it, is still to run."""

    task: str
    number: int
    digest: str
    metric: str
    right: bool | None
    answer: str = ""
    program: str | None = None


class Tasks:
    """The tasks that a name stands for, their data read. `runs_code` when answers are programs.

    Raises Unavailable where the harness or a data set is not there, Misuse for a name or file that is wrong.
    """

    def __init__(self, asked: Asked) -> None:
        if find_spec("lm_eval") is None:
            raise Unavailable(
                explain(
                    "accuracy is measured with lm-evaluation-harness, which is not installed",
                    asked=f"accuracy({asked.task!r})",
                    next_step="pip install 'pytest-qwen[accuracy]'",
                )
            )
        self.asked = asked
        self._tasks: dict[str, Any] = _loaded(asked)
        self._check()
        sizes = {name: len(task.eval_docs) for name, task in self._tasks.items()}
        self.of = sum(sizes.values())
        self._chosen = _chosen(sizes, asked)

    @property
    def runs_code(self) -> bool:
        """Whether answers are programs, which only a sandbox may run."""
        return any(_is_code(task) for task in self._tasks.values())

    def ask(self, engine: Engine, config: Mapping[str, Any] | None) -> list[Sample]:
        """Put every chosen question to a loaded engine. Raises the engine's errors as they are."""
        with quietly(), local_data(), no_code(reading=False):
            from lm_eval.evaluator import evaluate

            from pytest_qwen.harness_lm import EngineLM

            tasks = {name: self._tasks[name] for name in self._chosen}
            for task in tasks.values():
                task.set_fewshot_seed(seed=self.asked.seed)
            found = evaluate(
                lm=EngineLM(engine, config),
                task_dict={"tasks": tasks, "groups": {}, "group_map": {}},
                samples=self._chosen,
                bootstrap_iters=0,
                confirm_run_unsafe_code=True,  # nothing is: the figures of such tasks were replaced in _check
            )
        samples = (_samples(tasks[name], rows, self.asked) for name, rows in found["samples"].items())
        return [sample for of_task in samples for sample in of_task]

    def _check(self) -> None:
        """Set what is asked, and refuse what has no place here."""
        for name, task in self._tasks.items():
            if (task.config.repeats or 1) > 1:
                raise Misuse(
                    explain(
                        "this task asks each question several times and samples the answers",
                        asked=name,
                        found=f"repeats: {task.config.repeats}",
                        next_step="use its form with one greedy answer a question",
                    )
                )
            if self.asked.shots is not None or task.config.num_fewshot is None:
                task.set_config(key="num_fewshot", value=self.asked.shots or 0)
            _check_shots(name, task)
            if _is_code(task):
                task.override_metric("bypass")


def _check_shots(name: str, task: Any) -> None:
    """Raises Misuse when a task has fewer examples than are to stand before each question."""
    shots, sampler = task.config.num_fewshot or 0, getattr(task, "sampler", None)
    if shots == 0 or sampler is None or not isinstance(sampler.df, Sequence):
        return
    there, names = len(sampler.df), task.config
    examples = names.fewshot_split or names.training_split or names.validation_split or names.test_split
    # where examples come from the questions themselves, the one that is asked is left out
    if shots > there - (examples == (names.test_split or names.validation_split)):
        raise Misuse(
            explain(
                f"{name} has too few examples to put before each question",
                asked=f"shots={shots}",
                found=f"{there} examples",
                next_step="fewer shots, or 0 for none",
            )
        )


def _is_code(task: Any) -> bool:
    return bool(getattr(task, "UNSAFE_CODE", False))


def _loaded(asked: Asked) -> dict[str, Any]:
    """The harness's tasks by name, with their data."""
    with quietly(), local_data(), no_code(reading=True):
        spec, manager = _source(asked)
        try:
            return dict(manager.load([spec])["tasks"])
        except QwenError:
            raise
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and "cache" not in str(error).lower():
                raise _unreadable(asked, error) from error
            raise _no_data(asked, error) from error
        except Exception as error:  # a task's file can hold anything
            raise _unreadable(asked, error) from error


def _source(asked: Asked) -> tuple[Any, Any]:
    """What the task manager loads, and a task manager that knows it."""
    from lm_eval import tasks

    if asked.task in OWN or asked.task.endswith((".yaml", ".yml")):
        own = fixtures_dir() / "accuracy" / f"{asked.task}.yaml"
        return _of_file(own if asked.task in OWN else asked.folder / asked.task, asked), _manager(None)
    root = Path(tasks.__file__).parent
    name, below = _NAMES.get(asked.task, (asked.task, None))
    manager = _manager(root / below if below else root)
    if name not in manager.task_index:
        near = closest(name, manager.all_tasks)
        raise Misuse(
            explain(
                f"there is no task {asked.task!r}",
                slip=f"did you mean {near!r}?" if near else "the path of a task's file ends in .yaml",
                choices=[
                    *_NAMES,
                    *OWN,
                    "any task of lm-evaluation-harness",
                    "the path of a task's YAML file",
                ],
            )
        )
    return name, manager


@cache
def _manager(folder: Path | None) -> Any:
    """A task manager that knows the tasks below a folder, or none."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder, include_defaults=False)


def _of_file(path: Path, asked: Asked) -> Any:
    """A task's file as the harness reads it; data files count from its folder, not from the working one."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        if not {"task"} <= load_yaml(path, resolve_func=False).keys():
            return str(path)  # a group: the harness finds its members
        config = load_yaml(path)
    except OSError as error:
        slip = "the path counts from the folder of the test's file"
        raise Misuse(
            explain("the task's file cannot be read", asked=str(path), found=error.strerror, slip=slip)
        ) from error
    except Exception as error:
        raise _unreadable(asked, error) from error
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if not files and config.get("dataset_path") in _FORMATS:
        # the working directory would be searched for such files, all of it
        raise Misuse(
            explain(
                "the task's file does not say where its data is",
                asked=f"{path}: dataset_path: {config['dataset_path']}",
                next_step="add dataset_kwargs: {data_files: {test: FILE}}, counted from the task's file",
            )
        )
    if files:
        config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": _below(path.parent, files)}
        for name in _names(config["dataset_kwargs"]["data_files"]):
            if not any(sign in name for sign in ("://", "*", "?", "[")) and not Path(name).exists():
                raise Unavailable(
                    explain(
                        "a data file of the task is not there",
                        asked=f"{path}: data_files",
                        found=f"no {name}",
                        slip="its path counts from the folder of the task's file",
                    )
                )
    return config


def _below(folder: Path, files: Any) -> Any:
    """Names of data files, at any depth of a configuration, made absolute."""
    if isinstance(files, Mapping):
        return {split: _below(folder, inner) for split, inner in files.items()}
    if isinstance(files, list):
        return [_below(folder, inner) for inner in files]
    return files if "://" in str(files) else str((folder / str(files)).resolve())


def _names(files: Any) -> list[str]:
    """Every name in a configuration of data files."""
    inner = files.values() if isinstance(files, Mapping) else files if isinstance(files, list) else None
    return [str(files)] if inner is None else [name for one in inner for name in _names(one)]


def _chosen(sizes: Mapping[str, int], asked: Asked) -> dict[str, list[int]]:
    """The numbers of the questions of each task: all of them, or `limit` drawn from all alike."""
    everything = [(name, number) for name, size in sizes.items() for number in range(size)]
    if asked.limit is not None and asked.limit < len(everything):
        drawn = random.Random(asked.seed).sample(everything, asked.limit)  # noqa: S311 - not secrets
        everything = sorted(drawn)  # the harness gives results in the order of the data
    found: dict[str, list[int]] = {}
    for name, number in everything:
        found.setdefault(name, []).append(number)
    return found


def _samples(task: Any, rows: Sequence[Mapping[str, Any]], asked: Asked) -> list[Sample]:
    """The harness's log of one task as samples, by the figure and the filter that were asked for."""
    metric, _, wanted = (asked.metric or "").partition(",")
    filters = list(dict.fromkeys(str(row["filter"]) for row in rows))
    chosen = wanted or filters[0]
    if chosen not in filters:
        raise Misuse(explain(f"{asked.task} has no such filter", asked=asked.metric, choices=filters))
    kept = [row for row in rows if row["filter"] == chosen]
    if _is_code(task):
        return [_sample(task, row, "pass@1", None) for row in kept]
    figures = [str(name) for name in kept[0]["metrics"]]
    name = metric or next((one for one in _METRICS if one in figures), figures[0])
    if name not in figures:
        raise Misuse(explain(f"{asked.task} has no such figure", asked=asked.metric, choices=figures))
    return [_sample(task, row, f"{name},{chosen}", _is_right(row[name], name, asked)) for row in kept]


def _sample(task: Any, row: Mapping[str, Any], metric: str, right: bool | None) -> Sample:
    answer = row["filtered_resps"][0]
    text = answer[0] if isinstance(answer, list) and answer else answer
    generated = isinstance(text, str)
    return Sample(
        task=task.config.task,
        number=int(row["doc_id"]),
        digest=str(row["doc_hash"])[:16],
        metric=metric,
        right=right,
        answer=text[:_SHOWN] if generated else "",
        program=f"{text}\n{row['target']}" if right is None else None,
    )


def _is_right(value: Any, metric: str, asked: Asked) -> bool:
    """Raises Misuse for a figure that is not right or wrong."""
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise Misuse(
        explain(
            f"{asked.task}: the figure {metric!r} does not say of an answer whether it is right",
            found=f"{value!r:.80}",
            next_step="name a figure that is 0 or 1 for each question: accuracy(..., metric='acc')",
        )
    )


def _no_data(asked: Asked, error: Exception) -> Unavailable:
    return Unavailable(
        explain(
            "the data set is not there",
            asked=f"accuracy({asked.task!r})",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            slip="data sets are not downloaded unless HF_HUB_OFFLINE=0 is set",
            next_step="run once with HF_HUB_OFFLINE=0 where there is a network: HF_HOME keeps it. Or "
            "write a task's YAML file whose dataset_kwargs name data files of yours",
            choices=OWN,
        )
    )


def _unreadable(asked: Asked, error: Exception) -> Misuse:
    slips = {
        "KeyError": "it names a split or a figure that does not exist",
        "UndefinedError": "its templates name a field that the data does not have",
        "StopIteration": "a data file is empty",
    }
    inner = error.__cause__ if type(error).__name__ == "DatasetGenerationError" else None
    said = str(inner or error)
    return Misuse(
        explain(
            "the task cannot be read",
            asked=f"accuracy({asked.task!r})",
            found=f"{type(inner or error).__name__}: {said.splitlines()[0]}"
            if said
            else type(error).__name__,
            slip=slips.get(type(error).__name__),
            next_step=f"lm_eval validate --tasks {asked.task} says more",
        )
    )
